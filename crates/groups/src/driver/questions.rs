//! What other agents ask of this one.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::AgentId;
use x0x_mls::verify_key_package;

use super::{GroupEventKind, Inner};
use crate::{
    error::{ActError, GroupsError},
    state::USED_UP,
    wire::{Action, Answer, Claim, GroupId, Handover, OpId, Question, StatementIn},
};

const NOT_ASKED_FOR: &str = "not asked for";

/// What somebody is told who may not ask: what any stranger might be told.
fn refusal(question: &Question) -> String {
    match question {
        Question::State { .. } => ActError::Target(USED_UP).to_string(),
        Question::HandOver { .. } => NOT_ASKED_FOR.to_owned(),
        _ => "refused".to_owned(),
    }
}

impl Inner {
    /// Answers an agent that is proven to be who it is.
    pub(crate) async fn answer(self: &Arc<Self>, from: AgentId, question: Question) -> Answer {
        if !self.admittance.may_ask(&from) {
            self.metrics.answers_refused.inc();
            return Answer::Refused(refusal(&question));
        }
        let answered = match question {
            Question::Package => self.package().await,
            Question::State { statement, package } => self.stated(from, statement, package).await,
            Question::HandOver { group, handover } => self.brought(from, group, handover).await,
            Question::Invitation { group, open } => self.invited(from, group, open).await,
            Question::Cards => Ok(self.handed(&from)),
            Question::Past { group } => {
                let past = self.worker.run(move |owned| owned.past_for(group, from)).await;
                past.map(Answer::Past)
            }
            Question::Since { group, heads } => self.since(from, group, heads).await,
        };
        let answer = answered.unwrap_or_else(|error| {
            tracing::debug!(agent = %from.short(), %error, "a question about a group is refused");
            Answer::Refused(error.told())
        });
        match answer {
            Answer::Refused(_) => self.metrics.answers_refused.inc(),
            _ => self.metrics.answered.inc(),
        }
        answer
    }

    /// Somebody asks for what it lacks; what it has and this agent lacks is asked for in turn.
    async fn since(
        &self,
        from: AgentId,
        group: GroupId,
        heads: Vec<OpId>,
    ) -> Result<Answer, GroupsError> {
        let compared = self.worker.run(move |owned| {
            let operations = owned.groups.since(group, from, &heads)?;
            Ok((operations, owned.groups.lacks(group, &heads)?))
        });
        let (operations, lacks) = compared.await?;
        if lacks {
            self.is_ahead(group, from);
        }
        Ok(Answer::Operations(operations))
    }

    async fn package(&self) -> Result<Answer, GroupsError> {
        let made = self.worker.run(|owned| {
            let now = owned.now();
            Ok(owned.groups.key_packages(1, now)?)
        });
        let package = made.await?.into_iter().next();
        Ok(package.map_or_else(|| Answer::Refused("no key package".to_owned()), Answer::Package))
    }

    /// Somebody redeems an invite, asks to be admitted, or does not want to any more.
    async fn stated(
        self: &Arc<Self>,
        from: AgentId,
        statement: Bytes,
        package: Bytes,
    ) -> Result<Answer, GroupsError> {
        let statement = StatementIn::decode(&statement)?.verify()?;
        if statement.agent != from {
            return Ok(Answer::Refused("the statement is another agent's".to_owned()));
        }
        let group = statement.group;
        let answer = self.worker.run(move |owned| {
            let now = owned.now();
            let groups = &mut owned.groups;
            let answer = match &statement.claim {
                Claim::Redeem { .. } => {
                    let package = match package.is_empty() {
                        true => None,
                        false => Some(
                            verify_key_package(&package, now).map_err(x0x_mls::GroupError::from)?,
                        ),
                    };
                    Answer::HandOver(groups.admit_redeemed(statement, package, now)?)
                }
                Claim::Request { .. } => {
                    groups.act(group, Action::Request(Box::new(statement)), now)?;
                    Answer::Done
                }
                Claim::Cancel { .. } => {
                    groups.act(group, Action::Cancel(Box::new(statement)), now)?;
                    Answer::Done
                }
            };
            owned.save()?;
            Ok(answer)
        });
        let answer = answer.await?;
        self.wake(group);
        Ok(answer)
    }

    /// Somebody brings this agent into a group.
    async fn brought(
        self: &Arc<Self>,
        from: AgentId,
        group: GroupId,
        handover: Handover,
    ) -> Result<Answer, GroupsError> {
        let wanted = self.wanted().contains_key(&group);
        if !wanted && !self.admittance.may_bring(&from) {
            return Ok(Answer::Refused(NOT_ASKED_FOR.to_owned()));
        }
        self.enter(group, handover).await?;
        Ok(Answer::Done)
    }

    /// Comes into a group by what was handed over, and follows its log.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        group: GroupId,
        handover: Handover,
    ) -> Result<(), GroupsError> {
        let enter = self.worker.run(move |owned| owned.enter(group, &handover));
        let happened = enter.await?;
        self.wanted().remove(&group);
        self.follow(group);
        self.note(group, GroupEventKind::Entered);
        self.tell(group, happened);
        Ok(())
    }

    /// Somebody wants to come (back) in by an own commit.
    async fn invited(
        &self,
        from: AgentId,
        group: GroupId,
        open: bool,
    ) -> Result<Answer, GroupsError> {
        let made = self.worker.run(move |owned| {
            Ok(match open {
                true => owned.groups.open_invitation(group)?,
                false => owned.groups.invitation(group, from)?,
            })
        });
        Ok(Answer::HandOver(made.await?))
    }
}
