use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;
use crate::bus::{DeadKind, Delivery, Emit, Outcome, Retries, State};
use crate::error::ErrorKind;

async fn count(State(count): State<Arc<AtomicU32>>, emit: Emit) -> Result<(), Outcome> {
    count.fetch_add(1, Relaxed);
    emit.append("counted", Event::new("counted", "1"))?;
    Ok(())
}

async fn counting() -> (Bench, Arc<AtomicU32>) {
    let effects = Arc::new(AtomicU32::new(0));
    let state = effects.clone();
    (Bench::with(count, move |consuming| consuming.state(state.clone())).await.unwrap(), effects)
}

#[tokio::test]
async fn failures_are_retried_as_the_group_says() {
    let (bench, effects) = counting().await;
    let run = bench.run(Event::new("numbered", "1")).failing(3).await.unwrap();
    run.assert_acked();
    run.assert_retried(3);
    for (wait, full) in run.waits().into_iter().zip([100, 200, 400].map(Duration::from_millis)) {
        assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
    }
    assert_eq!(effects.load(Relaxed), 1);
    assert_eq!(bench.appended("counted").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_crash_repeats_the_effect_and_emits_once() {
    let (bench, effects) = counting().await;
    let run = bench.run(Event::new("numbered", "1")).crashing(2).await.unwrap();
    run.assert_acked();
    assert_eq!(run.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(run.waits(), [Duration::from_secs(5); 2], "the lease");
    assert_eq!(effects.load(Relaxed), 3);
    assert_eq!(bench.appended("counted").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_handler_that_never_ends_is_timed_out() {
    async fn hang(delivery: Delivery) {
        if delivery.attempt() == 1 {
            std::future::pending().await
        }
    }
    let bench = Bench::new(hang).await.unwrap();
    let run = bench.run(Event::new("numbered", "1")).await.unwrap();
    run.assert_acked();
    let first = run.attempts[0].outcome.clone();
    assert_eq!(first, Some(Outcome::retry("handler took longer than 600s")));
}

#[tokio::test]
async fn what_is_given_up_on_is_shown() {
    let refuse = |delivery: Delivery| std::future::ready(Outcome::retry(delivery.attempt()));
    let bench = Bench::with(refuse, |consuming| consuming.retries(Retries::NEVER)).await.unwrap();
    let run = bench.run(Event::new("numbered", "1")).await.unwrap();
    let letter = run.assert_dead();
    assert_eq!((letter.kind, &*letter.reason), (DeadKind::AttemptsUsedUp, "1"));
}

#[tokio::test]
async fn each_run_sees_its_own_event() {
    let (bench, effects) = counting().await;
    for _ in 0..3 {
        bench.run(Event::new("numbered", "1")).await.unwrap().assert_retried(0);
    }
    assert_eq!(effects.load(Relaxed), 3);
}

#[tokio::test]
async fn a_state_that_is_missing_is_told_at_once() {
    let error = Bench::new(count).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
