//! What a submission says about the spans of its tasks (since 2023.6.0).

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use oxidask_scheduler_core::graph::{SpanNote, SpanNotes, SpanTag};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::payload::Payload;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::g4;

/// Bytes of metadata or code above which they are not kept.
const MAX_NOTE: usize = 256 << 10;
/// Characters of a tag after which it is cut off.
const MAX_TAG: usize = 200;

/// The span that a map of annotations names, after those it is in: `{name: (…), ids: (…)}`.
pub(super) fn path(annotations: &Value) -> Vec<SpanTag> {
    annotations.get("span").map(tags).unwrap_or_default()
}

/// The same of the annotation itself.
pub(super) fn tags(span: &Value) -> Vec<SpanTag> {
    let texts = |field: &str| span.get(field).and_then(Value::as_seq).unwrap_or_default();
    let (tags, ids) = (texts("name").iter(), texts("ids").iter());
    let tag = |(tag, id): (&Value, &Value)| {
        let tag: String = tag.as_str()?.chars().take(MAX_TAG).collect();
        Some(SpanTag {
            tag: tag.into(),
            id: id.as_str()?.into(),
        })
    };
    tags.zip(ids).filter_map(tag).collect()
}

/// What the client says about the graph, without holding on to the message.
pub(super) fn notes(fields: &Fields) -> SpanNotes {
    SpanNotes {
        metadata: note(&fields.span_metadata),
        code: note(&fields.code),
    }
}

fn note(value: &Value) -> Option<SpanNote> {
    let pickle = value.as_payload()?.as_pickle(MAX_NOTE).ok()??;
    let (pickle, buffers) = pickle;
    let mut hasher = DefaultHasher::new();
    pickle.hash(&mut hasher);
    let bytes = pickle.len() + buffers.iter().map(Bytes::len).sum::<usize>();
    // Clients that collect no code send an empty tuple.
    let data = match g4::plain(value) {
        Ok(Ok(Value::Nil)) => return None,
        Ok(Ok(plain)) if plain.as_seq().is_some_and(<[Value]>::is_empty) => return None,
        Ok(Ok(plain)) => plain,
        _ => Value::from(Payload::pickled(
            &pickle,
            buffers.iter().map(|b| Bytes::copy_from_slice(b)).collect(),
        )),
    };
    (bytes <= MAX_NOTE).then(|| SpanNote {
        data: Opaque::new(data),
        bytes,
        digest: hasher.finish(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: Value, ids: Value) -> Value {
        let span = Value::map([("name", names), ("ids", ids)]);
        Value::map([("span", span)])
    }

    #[test]
    fn a_span_comes_after_those_it_is_in() {
        let names = Value::array(["outer", "inner"]);
        let of = |ids: &[&str]| {
            let ids = Value::array(ids.iter().copied());
            let path = path(&named(names.clone(), ids));
            let tag = |tag: &SpanTag| format!("{}={}", tag.tag, tag.id);
            path.iter().map(tag).collect::<Vec<_>>()
        };
        assert_eq!(of(&["1", "2"]), ["outer=1", "inner=2"]);
        assert_eq!(of(&[]), [""; 0]);
        assert_eq!(path(&Value::Nil), []);
        assert_eq!(path(&named(5.into(), 6.into())), []);
        let long = named(Value::array(["é".repeat(5000)]), Value::array(["1"]));
        assert_eq!(path(&long)[0].tag.chars().count(), MAX_TAG);
    }

    #[test]
    fn what_is_said_of_a_graph_is_kept_unless_it_is_nothing() {
        let pickled = |pickle: &[u8]| note(&Value::from(Payload::pickled(pickle, Vec::new())));
        assert!(pickled(b"\x80\x04N.").is_none());
        assert!(pickled(b"\x80\x04).").is_none());
        let plain = pickled(b"\x80\x04]K\x07a.").expect("a note");
        let seven = Value::array([7]);
        assert_eq!(plain.data.get::<Value>(), Some(&seven));
        let object = pickled(b"\x80\x04cmodule\nname\n.").expect("a note");
        let object = object.data.get::<Value>();
        assert!(object.is_some_and(|value| value.as_payload().is_some()));
        assert!(note(&seven).is_none());
    }
}
