//! One server that knows its users.

use std::path::Path;

use anyhow::Result;

use crate::server::Server;
use crate::standalone::Persistence;

const ADMIN: (&str, &str) = ("admin", "admin-secret");
/// The password has what a URL must escape.
const USER: (&str, &str) = ("tidewire", "s3cret/@:");
const USER_IN_URL: &str = "tidewire:s3cret%2F%40%3A";

/// What a user of the engine may do, as `docs/redis-layout.md` lists it; environments `dev` and `prod`.
pub(crate) const RULES: &str = "resetchannels allchannels ~dev:tenant:* ~prod:tenant:* ~tidewire:* -@all \
    +ping +info +get +set +del +evalsha +script|load +time +exists +pexpire +persist +memory|usage \
    +xadd +xlen +xrange +xrevrange +xtrim +hset +hget +hmget +hgetall +hkeys +hdel \
    +zadd +zrem +zrange +zcard +zlexcount +zscore \
    +publish +spublish +subscribe +unsubscribe +psubscribe +punsubscribe +ssubscribe +sunsubscribe \
    +pubsub|numsub +pubsub|numpat +pubsub|shardnumsub";

/// One server whose default user is off, with a user that may do what the engine needs and nothing else.
pub struct Acl {
    /// The server.
    pub server: Server,
}

impl Acl {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(program: &Path) -> Result<Self> {
        let server = Server::start(program, &[], Some(ADMIN), |_| {
            let mut lines = Persistence::Nothing.lines();
            lines.push("user default off".to_owned());
            lines.push(format!("user {} on >{} ~* &* +@all", ADMIN.0, ADMIN.1));
            lines.push(format!("user {} on >{} {RULES}", USER.0, USER.1));
            Ok(lines)
        })?;
        Ok(Self { server })
    }

    /// `redis://user:password@IP:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{USER_IN_URL}@{}", self.server.admin.address())
    }
}
