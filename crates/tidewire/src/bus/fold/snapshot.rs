//! A snapshot of a fold, as it is kept. Drawn in `docs/formats/snapshot.md`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{Seen, Term};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u32 = 1;

/// What is read first, so that a later version is refused by name.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Snapshot<S> {
    version: u32,
    position: String,
    term: u64,
    state: S,
}

pub(super) fn encode<S: Serialize>(reached: Seen, state: &S) -> Result<Bytes> {
    let Seen { position, term } = reached;
    let snapshot = Snapshot { version: VERSION, position: position.to_string(), term: term.0, state };
    let bytes = serde_json::to_vec(&snapshot).map_err(|error| {
        Error::new(ErrorKind::Codec, "the state of a fold cannot be written as JSON").caused_by(error)
    })?;
    Ok(bytes.into())
}

pub(super) fn decode<S: DeserializeOwned>(bytes: &[u8]) -> Result<(Seen, S)> {
    let fault = |error| Error::new(ErrorKind::Codec, "snapshot is not as it was written").caused_by(error);
    let Header { version } = serde_json::from_slice(bytes).map_err(fault)?;
    if version != VERSION {
        let text = format!("snapshot has version {version}, this node reads version {VERSION}");
        return Err(Error::new(ErrorKind::Codec, text));
    }
    let Snapshot { position, term, state, .. } = serde_json::from_slice(bytes).map_err(fault)?;
    Ok((Seen { position: position.parse()?, term: Term(term) }, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, Position};

    /// Version 1. Append-only: a snapshot of any release is read by all later ones.
    const GOLDEN: &str = r#"{"version":1,"position":"00000000000000ab:7","term":3,"state":[1,2]}"#;

    #[test]
    fn the_golden_snapshot_never_changes() {
        let reached = Seen { position: Position { epoch: Epoch::from_u64(0xab), offset: 7 }, term: Term(3) };
        assert_eq!(encode(reached, &[1, 2]).unwrap(), GOLDEN);
        assert_eq!(decode::<Vec<u32>>(GOLDEN.as_bytes()).unwrap(), (reached, vec![1, 2]));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let why = |text: &str| decode::<u32>(text.as_bytes()).expect_err("it cannot be read").to_string();
        assert!(why(r#"{"version":2,"odd":true}"#).contains("version 2"));
        assert!(why(GOLDEN).contains("expected u32"));
        assert!(why(&GOLDEN.replace("[1,2]", "1").replace("ab:7", "ab")).contains("EPOCH:OFFSET"));
    }
}
