use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;

use super::super::extract::{Emit, Json, Lost, State};
use super::*;
use crate::clock::Timestamp;
use crate::event::Event;

fn delivery() -> Delivery {
    let mut states = States::default();
    states.insert(7_u32);
    Delivery::sample(Event::new("numbered", "35"), states)
}

async fn outcome<Args: 'static>(handler: impl EventHandler<Args>) -> Outcome {
    HandlerService::new(handler).handle(delivery()).await
}

async fn six(
    Json(number): Json<u32>,
    State(other): State<u32>,
    event: Event,
    data: Bytes,
    emit: Emit,
    Lost(lost): Lost,
) -> Result<(), Outcome> {
    emit.append("sums", event).map_err(Outcome::reject)?;
    let is_right = number + other == 42 && data == "35" && !lost.is_cancelled();
    if is_right { Ok(()) } else { Err(Outcome::reject("wrong")) }
}

#[tokio::test]
async fn a_function_of_up_to_six_arguments_handles_deliveries() {
    assert_eq!(outcome(six).await, Outcome::Ack);
    assert_eq!(outcome(|| ready(())).await, Outcome::Ack);
    let attempts = |delivery: Delivery| async move { Outcome::park(delivery.attempt()) };
    assert_eq!(outcome(attempts).await, Outcome::park(1));
    let with_question_mark = |Json(number): Json<u32>| async move {
        "x".repeat(number as usize).parse::<u32>()?;
        Ok::<_, Outcome>(())
    };
    assert_eq!(outcome(with_question_mark).await, Outcome::retry("invalid digit found in string"));
}

#[tokio::test]
async fn an_argument_that_cannot_be_had_decides_without_the_handler() {
    async fn never(_: Json<bool>) {
        unreachable!("the data is no bool");
    }
    assert!(matches!(outcome(never).await, Outcome::Reject { .. }));
}

#[tokio::test]
async fn a_handler_asks_for_its_states_before_the_first_delivery() {
    let service = HandlerService::new(six).layered(Counted::default());
    assert!(service.check(&States::default()).expect_err("no state").to_string().contains("State<u32>"));
    service.check(&delivery().parts().group.states).unwrap();
}

#[tokio::test]
async fn a_panic_is_a_retry_that_says_what_it_was() {
    async fn with_text(event: Event) {
        tokio::task::yield_now().await;
        assert!(event.key().is_some(), "no key");
    }
    assert_eq!(outcome(with_text).await, Outcome::retry("handler panicked: no key"));
    let at_once =
        |event: Event| if event.key().is_none() { panic!("key {:?}", event.key()) } else { ready(()) };
    assert_eq!(outcome(at_once).await, Outcome::retry("handler panicked: key None"));
    let with_no_text = || async { std::panic::resume_unwind(Box::new(7)) };
    let with_no_text = move || -> Pin<Box<dyn Future<Output = ()> + Send>> { Box::pin(with_no_text()) };
    assert_eq!(outcome(with_no_text).await, Outcome::retry("handler panicked: with no text"));
}

/// Panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_dropped_and_tried_again() {
    let clock = Clock::virtual_at(Timestamp::default());
    let time_max = Duration::from_secs(30);
    let limited = |service: HandlerService| service.with_timeout(time_max, clock.clone());
    let late = limited(HandlerService::new(pending::<()>));
    let fragile = limited(HandlerService::new(|| async {
        let _fragile = Fragile;
        pending::<()>().await;
    }));
    let quick = limited(HandlerService::new(|| ready(())));
    let advance = async { clock.advance(time_max) };
    let (late, fragile, ()) = tokio::join!(late.handle(delivery()), fragile.handle(delivery()), advance);
    assert_eq!(late, Outcome::retry("handler took longer than 30s"));
    assert_eq!(fragile, Outcome::retry("handler panicked: dropped"));
    assert_eq!(quick.handle(delivery()).await, Outcome::Ack);
}

/// A layer that counts calls and those of them that were ready.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicU32>);

#[derive(Clone)]
struct Counting<S> {
    inner: S,
    calls: Arc<AtomicU32>,
    is_ready: bool,
}

impl<S> Layer<S> for Counted {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, calls: self.0.clone(), is_ready: false }
    }
}

impl<S: Service<Delivery>> Service<Delivery> for Counting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.is_ready = true;
        self.inner.poll_ready(context)
    }

    fn call(&mut self, delivery: Delivery) -> S::Future {
        assert!(std::mem::take(&mut self.is_ready), "called before it was ready");
        self.calls.fetch_add(1, Relaxed);
        self.inner.call(delivery)
    }
}

/// A layer that refuses every delivery.
#[derive(Clone)]
struct Refusing;

impl<S> Layer<S> for Refusing {
    type Service = Self;

    fn layer(&self, _inner: S) -> Self {
        Self
    }
}

impl Service<Delivery> for Refusing {
    type Response = Result<(), Infallible>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Err("overloaded"))
    }

    fn call(&mut self, _delivery: Delivery) -> Self::Future {
        unreachable!("it was not ready")
    }
}

#[tokio::test]
async fn layers_wrap_the_handler_and_their_errors_are_retries() {
    let counted = Counted::default();
    let service = HandlerService::new(six).layered(counted.clone()).layered(counted.clone());
    assert_eq!(service.handle(delivery()).await, Outcome::Ack);
    assert_eq!(counted.0.load(Relaxed), 2);
    let refusing = HandlerService::new(six).layered(Refusing);
    assert_eq!(refusing.handle(delivery()).await, Outcome::retry("overloaded"));
}

#[test]
fn a_call_without_layers_allocates_once() {
    let clock = Clock::system();
    let service = HandlerService::new(|_: Delivery, _: State<u32>| async {})
        .with_timeout(Duration::from_secs(30), clock);
    let call = |delivery| service.handle(delivery).now_or_never();
    // The first call of a thread makes what the runtime keeps for the thread.
    assert_eq!(call(delivery()), Some(Outcome::Ack));
    let delivery = delivery();
    let measured = allocation_counter::measure(|| assert_eq!(call(delivery), Some(Outcome::Ack)));
    assert_eq!(measured.count_total, 1);
}
