//! stub
use crate::journal::owner::OwnerHandle;
use crate::upstream::dial::{Conversation, Facts};
use crate::upstream::shared::Shared;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
pub struct Settings {
    pub start_delay_max: Duration,
    pub rate_max: Option<NonZeroU32>,
    pub age_max: Option<Duration>,
}
#[derive(Default)]
pub struct Controls {}
pub enum Outcome {
    CaughtUp,
    Failed(crate::breaker::Trouble),
}
pub struct Replay {
    owner: OwnerHandle,
}
impl Replay {
    pub fn new(_: Arc<Shared>, owner: OwnerHandle, _: Settings, _: Arc<Controls>) -> Self {
        Self { owner }
    }
    pub async fn recover(&mut self, _: Conversation, _: &Facts) -> Outcome {
        loop {
            let (tx, rx) = tokio::sync::oneshot::channel();
            let _ = self.owner.close(Box::new(move |a| {
                let _ = tx.send(a);
            }));
            if let Ok(crate::journal::handover::Close::Closed { .. }) = rx.await {
                return Outcome::CaughtUp;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    pub async fn tend(&mut self) {}
}
