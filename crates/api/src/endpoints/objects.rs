//! Rows of shared objects: task lists and key-value stores.

use super::row::{created, delete, get, json, patch, post, put, stream};
use crate::{
    endpoint::{Answer, Endpoint, Parameter, SchemaOf},
    event::{StoreEvent, TaskEvent},
    operation::Operation,
    types::{
        AddTaskRequest, AddTaskResponse, ChangeTaskRequest, ChangeTaskResponse,
        CreateObjectRequest, JoinStoreRequest, KeysResponse, ObjectResponse, ObjectStatusResponse,
        OkResponse, PolicyRequest, PutValueRequest, PutValueResponse, StoresResponse,
        TaskListsResponse, TaskResponse, TasksResponse, ValueResponse,
    },
};

const LISTS: &str = "Task lists";

const LIMIT: Parameter =
    Parameter::new("limit", "integer", "At most so many; all of them unless given, 10000 at most.");
const CURSOR: Parameter =
    Parameter::new("cursor", "string", "Go on where a page ended: its `next`.");

pub(super) const TASKS: &[Endpoint] = &[
    get(Operation::TaskLists, "/task-lists", LISTS, json::<TaskListsResponse>())
        .cli("tasks list")
        .says("The task lists of this daemon."),
    post(Operation::CreateTaskList, "/task-lists", LISTS, created::<ObjectResponse>())
        .cli("tasks create")
        .says("Creates a task list, or joins the open one of that topic. To join one with an owner, give its id as `topic`.")
        .takes::<CreateObjectRequest>(),
    get(Operation::TaskListStatus, "/task-lists/{id}", LISTS, json::<ObjectStatusResponse>())
        .cli("tasks status")
        .says("How a task list stands here: policy, writers, operations, hash."),
    delete(Operation::LeaveTaskList, "/task-lists/{id}", LISTS, json::<OkResponse>())
        .cli("tasks leave")
        .says("Forgets a task list here; other daemons keep it."),
    post(
        Operation::TaskListPolicy,
        "/task-lists/{id}/policy",
        LISTS,
        json::<ObjectStatusResponse>(),
    )
    .cli("tasks policy")
    .says("Changes who may write; of its owner only.")
    .takes::<PolicyRequest>(),
    get(Operation::Tasks, "/task-lists/{id}/tasks", LISTS, json::<TasksResponse>())
        .cli("tasks show")
        .says("The tasks of a list, in their order.")
        .query(&[LIMIT, CURSOR]),
    post(Operation::AddTask, "/task-lists/{id}/tasks", LISTS, created::<AddTaskResponse>())
        .cli("tasks add")
        .says("Adds a task.")
        .takes::<AddTaskRequest>(),
    get(Operation::Task, "/task-lists/{id}/tasks/{task_id}", LISTS, json::<TaskResponse>())
        .cli("tasks get")
        .says("One task, and who did what with it."),
    patch(
        Operation::ChangeTask,
        "/task-lists/{id}/tasks/{task_id}",
        LISTS,
        json::<ChangeTaskResponse>(),
    )
    .cli("tasks edit")
    .says("Claims, renews, releases, completes or reopens a task, or changes its fields. 409 `conflict` when its state does not allow it.")
    .takes::<ChangeTaskRequest>(),
    delete(
        Operation::DeleteTask,
        "/task-lists/{id}/tasks/{task_id}",
        LISTS,
        json::<OkResponse>(),
    )
    .cli("tasks delete")
    .says("Deletes a task; changes of it by others at the same time are lost."),
    stream(
        Operation::TaskEvents,
        "/task-lists/{id}/events",
        LISTS,
        Answer::Events(SchemaOf::new::<TaskEvent>()),
    )
    .cli("tasks watch")
    .says("What happens to the tasks of a list from now on, as server-sent events; `Last-Event-ID` goes on where a stream ended, or `lagged` says that it cannot; `claim_lost` tells who lost a claim, and to whom."),
];

const STORE: &str = "Key-value stores";

pub(super) const STORES: &[Endpoint] = &[
    get(Operation::Stores, "/stores", STORE, json::<StoresResponse>())
        .cli("store list")
        .says("The key-value stores of this daemon."),
    post(Operation::CreateStore, "/stores", STORE, created::<ObjectResponse>())
        .cli("store create")
        .says("Creates a store.")
        .takes::<CreateObjectRequest>(),
    get(Operation::StoreStatus, "/stores/{id}", STORE, json::<ObjectStatusResponse>())
        .cli("store status")
        .says("How a store stands here: policy, writers, operations, hash."),
    delete(Operation::LeaveStore, "/stores/{id}", STORE, json::<OkResponse>())
        .cli("store leave")
        .says("Forgets a store here; other daemons keep it."),
    post(Operation::JoinStore, "/stores/{id}/join", STORE, json::<ObjectResponse>())
        .cli("store join")
        .says("Joins a store of another daemon by its id.")
        .may_take::<JoinStoreRequest>(),
    post(Operation::StorePolicy, "/stores/{id}/policy", STORE, json::<ObjectStatusResponse>())
        .cli("store policy")
        .says("Changes who may write; of its owner only.")
        .takes::<PolicyRequest>(),
    get(Operation::Keys, "/stores/{id}/keys", STORE, json::<KeysResponse>())
        .cli("store keys")
        .says("The keys of a store, in byte order.")
        .query(&[Parameter::new("prefix", "string", "Only keys that begin so."), LIMIT, CURSOR]),
    get(Operation::Value, "/stores/{id}/{key}", STORE, json::<ValueResponse>())
        .cli("store get")
        .says("The value of a key, and those that were put at the same time. A `/` in a key is `%2F` in the path; keys of the names `keys`, `watch`, `join` and `policy` cannot be reached."),
    put(Operation::PutValue, "/stores/{id}/{key}", STORE, json::<PutValueResponse>())
        .cli("store put")
        .says("Puts a value; 413 beyond 64 KiB, 409 when `if_version` does not hold.")
        .takes::<PutValueRequest>(),
    delete(Operation::DeleteValue, "/stores/{id}/{key}", STORE, json::<OkResponse>())
        .cli("store rm")
        .says("Deletes a key; a value that is put at the same time stays.")
        .query(&[Parameter::new(
            "if_version",
            "string",
            "Only when the key is at this version here, else 409 `conflict`.",
        )]),
    stream(
        Operation::WatchStore,
        "/stores/{id}/watch",
        STORE,
        Answer::Events(SchemaOf::new::<StoreEvent>()),
    )
    .cli("store watch")
    .says("What happens to keys from now on, as server-sent events; `Last-Event-ID` goes on where a stream ended, or `lagged` says that it cannot.")
    .query(&[Parameter::new("prefix", "string", "Only keys that begin so.")]),
];
