//! Real daemons, driven as their clients do: over HTTP, server-sent events and WebSockets.

mod abuse;
mod api;
mod background;
mod claims;
mod clients;
mod cluster;
mod events;
mod files;
mod floods;
mod group_cards;
mod groups;
mod hostile;
#[cfg(target_os = "linux")]
mod lan;
mod letters;
mod lifecycle;
mod limits;
mod line;
mod mail;
mod nine;
mod objects;
mod reach;
mod resume;
mod strangers;
mod support;
mod survive;
mod trust;
mod warnings;
mod websocket;
