//! The comm handshake (since 2.23.0): one map in each direction before any operation.

use crate::error::HandshakeError;
use crate::message::Message;
use crate::value::Value;

/// Key under which our own peers list what they can do. Stock ignores it.
const CAPABILITIES: &str = "oxidask";

/// What one side tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Compression it wants for its frames. We always announce none, so that nobody compresses.
    pub compression: Option<String>,
    /// Python version; informative.
    pub python: Vec<i64>,
    /// Highest pickle protocol it reads.
    pub pickle_protocol: i64,
    /// Extensions of a peer of our own; `None` for stock.
    pub capabilities: Option<Vec<String>>,
}

impl Handshake {
    /// What we announce. `pickle_protocol`: stock schedulers say 5 where they accept and 4 where
    /// they connect, so that what travels through them is in-band.
    pub fn ours(pickle_protocol: i64, capabilities: &[String]) -> Self {
        Self {
            compression: None,
            python: vec![3, 12, 0],
            pickle_protocol,
            capabilities: Some(capabilities.to_vec()),
        }
    }

    /// The message that carries it.
    pub fn to_message(&self) -> Message {
        let mut map = Value::map([
            ("compression", Value::from(self.compression.clone())),
            ("python", Value::array(self.python.iter().copied())),
            ("pickle-protocol", self.pickle_protocol.into()),
        ]);
        if let Some(capabilities) = &self.capabilities {
            map.insert(CAPABILITIES, Value::array(capabilities.iter()));
        }
        Message::from_value(&map)
    }

    /// Reads the peer's. Unknown entries are ignored.
    pub fn from_message(message: &Message) -> Result<Self, HandshakeError> {
        let value = message.value()?;
        let pickle_protocol = value
            .get("pickle-protocol")
            .and_then(Value::as_i64)
            .ok_or(HandshakeError::Missing("pickle-protocol"))?;
        let texts = |items: &[Value]| {
            items
                .iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let python = value
            .get("python")
            .and_then(Value::as_seq)
            .unwrap_or_default();
        Ok(Self {
            compression: value
                .get("compression")
                .and_then(Value::as_str)
                .map(str::to_owned),
            python: python.iter().filter_map(Value::as_i64).collect(),
            pickle_protocol,
            capabilities: value.get(CAPABILITIES).and_then(Value::as_seq).map(texts),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_handshake_is_read_and_ours_survives_the_round_trip() {
        let recorded: &[u8] =
            b"\x83\xabcompression\xc0\xa6python\x93\x03\x08\x12\xafpickle-protocol\x05";
        let stock = Handshake::from_message(&Message::from_body(recorded)).expect("valid");
        assert_eq!((stock.python, stock.pickle_protocol), (vec![3, 8, 18], 5));
        assert_eq!(stock.capabilities, None, "stock is not one of ours");
        let ours = Handshake::ours(4, &["resume".to_owned()]);
        assert_eq!(
            Handshake::from_message(&ours.to_message()).expect("valid"),
            ours
        );
        assert!(Handshake::from_message(&Message::from_body(b"\x80".as_slice())).is_err());
    }
}
