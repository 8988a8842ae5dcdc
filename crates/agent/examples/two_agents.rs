//! Two agents in one process: a gossip message and a direct message over post-quantum QUIC on
//! loopback.
//!
//! `cargo run --example two_agents -p x0x-agent`

use std::error::Error;

use x0x_agent::{Agent, AgentConfig, Delivery, DirectEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("x0x-two-agents-{}", std::process::id()));

    let mut config = AgentConfig::new(folder.join("alice/keys"), folder.join("alice/data"));
    config.bind = "127.0.0.1:0".parse()?;
    let alice = Agent::builder(config).start().await?;

    let mut config = AgentConfig::new(folder.join("bob/keys"), folder.join("bob/data"));
    config.bind = "127.0.0.1:0".parse()?;
    config.bootstrap = alice.local_addresses();
    let bob = Agent::builder(config).start().await?;
    println!("alice is {}\nbob is   {}", alice.agent_id(), bob.agent_id());

    let mut news = bob.subscribe("news").await?;
    alice.publish("news", "hello everyone".into()).await?;
    if let Some(Delivery::Message(message)) = news.next().await {
        println!("bob read {:?} by {}", message.payload, message.author);
    }

    let mut mail = alice.direct_events();
    let receipt = bob.send_direct(alice.agent_id(), "hello alice".into()).await?;
    println!("bob's message {:02x?} was acknowledged", receipt.id);
    if let Some(DirectEvent::Message(message)) = mail.next().await {
        println!("alice read {:?} from {}", message.payload, message.from);
    }

    bob.shutdown().await;
    alice.shutdown().await;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
