//! Lists of a bucket's keys.

use bytes::Bytes;
use serde::Deserialize;

use crate::{Client, Error, http};

/// Which keys of a bucket to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeysQuery {
    /// What the keys begin with.
    pub prefix: Bytes,
    /// The most keys on a page, at most 1,000; the node's default if `None`.
    pub limit: Option<u32>,
    /// The [`KeyPage::cursor`] of the page before; `None` for the first page.
    pub cursor: Option<String>,
    /// How many replicas of each partition to ask; one if `None`.
    pub r: Option<u8>,
}

/// A page of a bucket's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPage {
    /// The keys, in the order of their tokens. A page may have none and still not be the last.
    pub keys: Vec<Bytes>,
    /// What continues the list ([`KeysQuery::cursor`]); `None` on the last page.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct PageForm {
    keys: Vec<String>,
    cursor: Option<String>,
}

impl Client {
    /// Lists the keys of a bucket that have a value, one page.
    ///
    /// A key that is there from the first page to the last is listed once. One that is written or deleted meanwhile may be listed or not.
    ///
    /// ```no_run
    /// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
    /// use cartwheel_client::KeysQuery;
    ///
    /// let mut query = KeysQuery { prefix: "user-".into(), ..KeysQuery::default() };
    /// loop {
    ///     let page = client.keys("carts", &query).await?;
    ///     page.keys.iter().for_each(|key| println!("{}", key.escape_ascii()));
    ///     query.cursor = page.cursor;
    ///     if query.cursor.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket keeps no index or its name is too long, [`Error::Unavailable`] if too few nodes could answer.
    pub async fn keys(&self, bucket: impl AsRef<[u8]>, query: &KeysQuery) -> Result<KeyPage, Error> {
        let mut path = format!("{}?", http::list_path(bucket.as_ref()));
        let KeysQuery { prefix, limit, cursor, r } = query;
        if !prefix.is_empty() {
            path += "&prefix=";
            http::encode(&mut path, prefix);
        }
        if let Some(limit) = limit {
            path += &format!("&limit={limit}");
        }
        if let Some(cursor) = cursor {
            path += &format!("&cursor={cursor}");
        }
        if let Some(r) = r {
            path += &format!("&r={r}");
        }
        let PageForm { keys, cursor } = self.fetch(path).await?;
        let keys = keys.iter().map(|key| http::decode_key(key)).collect::<Option<_>>();
        let keys = keys.ok_or_else(|| Error::UnexpectedResponse("an unreadable key".to_owned()))?;
        Ok(KeyPage { keys, cursor })
    }

    /// Deletes all keys of a bucket, which keeps its settings. Nothing of what it held comes back; the space is freed in the background.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the change could not be saved: then it may still take effect.
    pub async fn delete_bucket(&self, bucket: impl AsRef<[u8]>) -> Result<(), Error> {
        self.send_delete(http::bucket_path(bucket.as_ref())).await
    }
}
