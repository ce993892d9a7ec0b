//! A check of linearizability: whether the operations of a history could have happened one at a time.
//!
//! It is the search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's table of configurations ("Testing for
//! linearizability", 2017). A configuration is the set of operations placed so far and the state that they lead to.

use std::collections::BTreeSet;

/// The most operations of a history that is checked.
pub const OPERATIONS_MAX: usize = 256;

/// The object on which the operations act.
pub trait Model {
    /// A state of the object.
    type State: Clone + Ord;
    /// An operation together with its response.
    type Operation;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `operation`; `None` if `operation` cannot have had its response in `state`.
    fn apply(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation and its times. All times of a history must differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interval<O> {
    /// When it was invoked.
    pub invoked: u64,
    /// When its response came. Without a response, it takes effect at some time after it was invoked, or never.
    pub answered: Option<u64>,
    /// The operation.
    pub operation: O,
}

/// The result of the check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linearity {
    /// The history has a linear order.
    Linear,
    /// It has none.
    NotLinear,
    /// The search exceeded its bound.
    GaveUp,
}

/// Searches for an order of `history` that `model` allows, through at most `configurations_max` configurations. The intervals must be sorted by
/// `invoked`.
pub fn check<M: Model>(model: &M, history: &[Interval<M::Operation>], configurations_max: usize) -> Linearity {
    if history.len() > OPERATIONS_MAX {
        return Linearity::GaveUp;
    }
    let mut search = Search { model, history, seen: BTreeSet::new(), configurations_max };
    search.place(Placed::default(), model.initial())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Placed([u64; OPERATIONS_MAX / 64]);

impl Placed {
    const fn contains(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    const fn with(mut self, at: usize) -> Self {
        self.0[at / 64] |= 1 << (at % 64);
        self
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Interval<M::Operation>],
    seen: BTreeSet<(Placed, M::State)>,
    configurations_max: usize,
}

impl<M: Model> Search<'_, M> {
    /// Places the remaining operations behind those that are `placed`.
    fn place(&mut self, placed: Placed, state: M::State) -> Linearity {
        // An operation may not precede one whose response came before it was invoked.
        let open = || self.history.iter().enumerate().filter(|(at, _)| !placed.contains(*at));
        let Some(first_response) = open().filter_map(|(_, interval)| interval.answered).min() else {
            return Linearity::Linear;
        };
        if self.seen.len() >= self.configurations_max {
            return Linearity::GaveUp;
        }
        if !self.seen.insert((placed, state.clone())) {
            return Linearity::NotLinear;
        }
        for (at, interval) in self.history.iter().enumerate() {
            if placed.contains(at) || interval.invoked > first_response {
                continue;
            }
            if let Some(next) = self.model.apply(&state, &interval.operation) {
                match self.place(placed.with(at), next) {
                    Linearity::NotLinear => {}
                    found => return found,
                }
            }
        }
        Linearity::NotLinear
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Register;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Access {
        Write(u8),
        Read(u8),
    }
    use Access::{Read, Write};

    impl Model for Register {
        type State = u8;
        type Operation = Access;

        fn initial(&self) -> u8 {
            0
        }

        fn apply(&self, state: &u8, operation: &Access) -> Option<u8> {
            match operation {
                Write(value) => Some(*value),
                Read(value) => (value == state).then_some(*state),
            }
        }
    }

    fn history(accesses: &[(u64, Option<u64>, Access)]) -> Vec<Interval<Access>> {
        accesses.iter().map(|&(invoked, answered, operation)| Interval { invoked, answered, operation }).collect()
    }

    fn verdict(accesses: &[(u64, Option<u64>, Access)]) -> Linearity {
        check(&Register, &history(accesses), 100_000)
    }

    #[test]
    fn a_read_sees_the_write_before_it() {
        assert_eq!(verdict(&[(1, Some(2), Write(1)), (3, Some(4), Read(1))]), Linearity::Linear);
        assert_eq!(verdict(&[(1, Some(2), Write(1)), (3, Some(4), Read(0))]), Linearity::NotLinear);
    }

    #[test]
    fn a_read_beside_a_write_may_see_either() {
        for seen in [0, 1] {
            assert_eq!(verdict(&[(1, Some(4), Write(1)), (2, Some(3), Read(seen))]), Linearity::Linear);
        }
    }

    #[test]
    fn the_new_value_is_not_followed_by_the_old_one() {
        let reads =
            |first, second| verdict(&[(1, Some(10), Write(1)), (2, Some(3), Read(first)), (4, Some(5), Read(second))]);
        assert_eq!(reads(0, 1), Linearity::Linear);
        assert_eq!(reads(1, 0), Linearity::NotLinear);
    }

    #[test]
    fn an_unanswered_write_may_happen_late_or_never_but_not_twice() {
        assert_eq!(verdict(&[(1, None, Write(1)), (2, Some(3), Read(0)), (4, Some(5), Read(1))]), Linearity::Linear);
        assert_eq!(verdict(&[(1, None, Write(1)), (2, Some(3), Read(0)), (4, Some(5), Read(0))]), Linearity::Linear);
        let again = [
            (1, None, Write(1)),
            (2, Some(3), Read(1)),
            (4, Some(5), Write(2)),
            (6, Some(7), Read(2)),
            (8, Some(9), Read(1)),
        ];
        assert_eq!(verdict(&again), Linearity::NotLinear);
    }

    #[test]
    fn the_search_is_bounded() {
        let many: Vec<_> =
            (0..20).map(|at| (at, Some(100 + at), Write(at as u8))).chain([(200, Some(201), Read(99))]).collect();
        assert_eq!(check(&Register, &history(&many), 50), Linearity::GaveUp);
    }

    /// Tries every order of every choice of unanswered operations.
    fn by_force(history: &[Interval<Access>], placed: &mut Vec<usize>, state: u8) -> bool {
        if (0..history.len()).all(|at| placed.contains(&at) || history[at].answered.is_none()) {
            return true;
        }
        (0..history.len()).any(|at| {
            let in_time = (0..history.len())
                .filter(|other| !placed.contains(other))
                .all(|other| history[other].answered.is_none_or(|answered| answered > history[at].invoked));
            if placed.contains(&at) || !in_time {
                return false;
            }
            Register.apply(&state, &history[at].operation).is_some_and(|next| {
                placed.push(at);
                let found = by_force(history, placed, next);
                placed.pop();
                found
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn it_agrees_with_a_search_of_all_orders(
            accesses in prop::collection::vec((0_u64..12, 1_u64..8, any::<bool>(), any::<bool>(), 0_u8..3), 0..7)
        ) {
            let history: Vec<_> = accesses.iter().enumerate().map(|(at, &(from, length, answered, writes, value))| {
                // All times must differ: a response and an invocation at the same time have no order.
                let (invoked, end) = (from * 64 + 2 * at as u64, (from + length) * 64 + 2 * at as u64 + 1);
                let operation = if writes { Write(value) } else { Read(value) };
                Interval { invoked, answered: (answered || !writes).then_some(end), operation }
            }).collect();
            let expected = if by_force(&history, &mut Vec::new(), 0) { Linearity::Linear } else { Linearity::NotLinear };
            prop_assert_eq!(check(&Register, &history, 100_000), expected);
        }
    }
}
