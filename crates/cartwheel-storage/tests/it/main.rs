//! The store on a real file system.

mod crash;
mod damage;
mod model;
