//! The documented schema of the types' operations and the code agree: what the code writes, the schema
//! describes completely.

use std::{collections::BTreeSet, time::Duration};

use protox::prost_reflect::{DynamicMessage, ReflectMessage, Value};
use x0x_core::{AgentId, WallTime};
use x0x_gossip_crdt::{
    Object,
    kv::{Content, FileReference, KvOp, KvStore, Put},
    tasks::{Action, Fields, TaskId, TaskList, TaskOp},
};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");

/// Names of the fields that a message sets, those of messages within it, too.
fn names(message: &DynamicMessage, found: &mut BTreeSet<String>) {
    assert_eq!(message.unknown_fields().count(), 0, "the schema knows all of {message:?}");
    let kind = message.descriptor().name().to_owned();
    for (field, value) in message.fields() {
        found.insert(format!("{kind}.{}", field.name()));
        let values = match value {
            Value::List(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            if let Value::Message(inner) = value {
                names(inner, found);
            }
        }
    }
}

fn fields_of(kind: &str, operations: &[Vec<u8>]) -> BTreeSet<String> {
    let pool = protox::compile(["objects.proto"], [SCHEMA]).expect("the schema compiles");
    let pool = protox::prost_reflect::DescriptorPool::from_file_descriptor_set(pool);
    let pool = pool.expect("a sound schema");
    let descriptor =
        pool.get_message_by_name(&format!("x0x.objects.v1.{kind}")).expect("described");
    let mut found = BTreeSet::new();
    for bytes in operations {
        let message = DynamicMessage::decode(descriptor.clone(), &bytes[..]).expect("it decodes");
        names(&message, &mut found);
    }
    found
}

#[test]
fn task_operations_are_as_documented() {
    let id = TaskId::new([1; 32]);
    let fields = Fields {
        title: Some("t".to_owned()),
        description: Some("d".to_owned()),
        priority: Some(1),
        assignee: Some(Some(AgentId::new([2; 32]))),
        due: Some(Some(WallTime::from_millis(5))),
        add_labels: vec!["a".to_owned()],
        remove_labels: vec!["b".to_owned()],
        place: Some(vec![1]),
    };
    let operations = [
        TaskOp::Add(fields.clone()),
        TaskOp::Edit(id, fields),
        TaskOp::Step(id, Action::Claim(Duration::from_secs(1))),
        TaskOp::Delete(id),
    ]
    .map(|op| TaskList::encode_op(&op));
    let expected = [
        "TaskOp.task",
        "TaskOp.add",
        "TaskOp.edit",
        "TaskOp.step",
        "TaskOp.delete",
        "Fields.title",
        "Fields.description",
        "Fields.priority",
        "Fields.assignee",
        "Fields.due_ms",
        "Fields.add_labels",
        "Fields.remove_labels",
        "Fields.place",
        "Step.action",
        "Step.lease_ms",
    ];
    assert_eq!(fields_of("TaskOp", &operations), expected.map(str::to_owned).into());
}

#[test]
fn store_operations_are_as_documented() {
    let file = FileReference { hash: [3; 32], size: 4, name: "n".to_owned() };
    let put = Put {
        content_type: "text/plain".to_owned(),
        metadata: [("name".to_owned(), "text".to_owned())].into(),
        ttl: Some(Duration::from_secs(1)),
        created: Some(WallTime::from_millis(5)),
        ..Put::new("key", "value")
    };
    let large = Put { content: Content::File(file), ..put.clone() };
    let operations = [KvOp::Put(put), KvOp::Put(large), KvOp::Delete("key".to_owned())]
        .map(|op| KvStore::encode_op(&op));
    let expected = [
        "KvOp.key",
        "KvOp.value",
        "KvOp.file",
        "KvOp.delete",
        "KvOp.content_type",
        "KvOp.metadata",
        "KvOp.ttl_ms",
        "KvOp.created_ms",
        "File.hash",
        "File.size",
        "File.name",
        "Pair.name",
        "Pair.text",
    ];
    assert_eq!(fields_of("KvOp", &operations), expected.map(str::to_owned).into());
}
