//! The thread that reads the store, so that drawing never waits for it.
//!
//! Owns when the store is looked at: at once when something new is asked, else every so often,
//! and not at all while paused. Without anything to do it sleeps. Looks that take long are made
//! less often, so that those who write hardly notice.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tallystone::Timestamp;
use tallystone::time::{Clock, SystemClock};

use super::Message;
use crate::dashboard::figures::Figures;
use crate::dashboard::read::Ask;

/// A look is followed by a rest of so many times its length, up to the longest rest: looking
/// takes two hundredths of a processor at most, whatever lies in the window.
const REST: u32 = 50;
const REST_MAX: Duration = Duration::from_secs(60);

/// What the reader is to do from now on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    /// Rises where the store is to be looked at now.
    pub(super) number: u64,
    pub(super) ask: Ask,
    pub(super) refresh: Duration,
    pub(super) is_paused: bool,
}

/// What a look at the store came to.
#[derive(Debug)]
pub(super) struct Answer {
    /// Number of the order.
    pub(super) number: u64,
    pub(super) ask: Ask,
    pub(super) at: Timestamp,
    /// The figures, or why there are none.
    pub(super) result: Result<Figures, String>,
}

/// Reads by `look` as the orders say, until nobody gives orders or wants answers.
pub(super) fn run(
    orders: &Receiver<Order>,
    answers: &Sender<Message>,
    mut look: impl FnMut(&Ask, Timestamp) -> Result<Figures, String>,
) {
    let Ok(mut order) = orders.recv() else { return };
    // The first look reads what later ones keep: how long it takes says nothing of them.
    let mut is_first = true;
    loop {
        let started = Instant::now();
        let at = SystemClock.now();
        let result = look(&order.ask, at);
        let answer = Answer { number: order.number, ask: order.ask.clone(), at, result };
        if answers.send(Message::Read(Box::new(answer))).is_err() {
            return;
        }
        let rest = if is_first { Duration::ZERO } else { rest_after(started.elapsed()) };
        is_first = false;
        match wait(orders, &order, started, rest) {
            Some(next) => order = next,
            None => return,
        }
    }
}

/// Least time from the begin of a look that took so long to the next.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(REST).min(REST_MAX)
}

/// Sleeps until the next look is due; the order that it follows, or `None` at the end.
fn wait(orders: &Receiver<Order>, done: &Order, started: Instant, rest: Duration) -> Option<Order> {
    let mut order = done.clone();
    loop {
        let next = if order.is_paused {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            orders.recv_timeout(order.refresh.max(rest).saturating_sub(started.elapsed()))
        };
        match next {
            // Of several the last counts.
            Ok(next) => order = orders.try_iter().last().unwrap_or(next),
            Err(RecvTimeoutError::Timeout) => return Some(order),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        if order.number != done.number {
            return Some(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::live::fixtures;
    use crate::dashboard::read::{AgentOrder, ListAsk};
    use std::sync::mpsc::channel;

    fn order(number: u64, window: i64) -> Order {
        let list = ListAsk {
            contains: String::new(),
            by: AgentOrder::Duration,
            is_descending: true,
            first: 0,
            rows: 0,
        };
        let ask = Ask { window, list, agent: None };
        Order { number, ask, refresh: Duration::from_secs(3_600), is_paused: false }
    }

    fn answer(messages: &Receiver<Message>) -> (u64, i64) {
        match messages.recv_timeout(Duration::from_secs(60)) {
            Ok(Message::Read(answer)) => (answer.number, answer.ask.window),
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    #[test]
    fn looks_at_once_when_asked_and_by_the_last_order() {
        let ((orders, received), (sent, messages)) = (channel(), channel());
        let (enter, entered) = channel();
        let (leave, left) = channel::<()>();
        let thread = std::thread::spawn(move || {
            run(&received, &sent, |_, _| {
                enter.send(()).unwrap();
                left.recv().unwrap();
                Ok(fixtures::empty())
            });
        });
        orders.send(order(1, 10)).unwrap();
        entered.recv().unwrap();
        // While the store is read, two more are asked for: the first of them is never read.
        orders.send(order(2, 20)).unwrap();
        orders.send(order(3, 30)).unwrap();
        leave.send(()).unwrap();
        assert_eq!(answer(&messages), (1, 10));
        leave.send(()).unwrap();
        assert_eq!(answer(&messages), (3, 30));
        // A longer refresh alone is no reason to read, nor is a pause.
        orders.send(Order { refresh: Duration::from_secs(7_200), ..order(3, 30) }).unwrap();
        orders.send(Order { is_paused: true, ..order(3, 40) }).unwrap();
        assert!(messages.recv_timeout(Duration::from_millis(50)).is_err());
        orders.send(Order { is_paused: true, ..order(4, 50) }).unwrap();
        leave.send(()).unwrap();
        assert_eq!(answer(&messages), (4, 50));
        drop(orders);
        thread.join().unwrap();
    }

    #[test]
    fn looks_that_take_long_are_followed_by_a_rest() {
        let ((orders, received), (sent, messages)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            run(&received, &sent, |_, _| {
                std::thread::sleep(Duration::from_millis(20));
                Err("gone".to_owned())
            });
        });
        orders.send(Order { refresh: Duration::from_millis(1), ..order(1, 10) }).unwrap();
        // The first has none.
        assert_eq!((answer(&messages), answer(&messages)), ((1, 10), (1, 10)));
        let since = Instant::now();
        assert_eq!(answer(&messages), (1, 10));
        assert!(since.elapsed() > Duration::from_millis(500), "{:?}", since.elapsed());
        // Whoever asks does not wait.
        let since = Instant::now();
        orders.send(order(2, 20)).unwrap();
        assert_eq!(answer(&messages), (2, 20));
        assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
        drop(orders);
        thread.join().unwrap();
        assert_eq!(rest_after(Duration::from_secs(9)), REST_MAX);
    }

    #[test]
    fn looks_again_after_the_refresh() {
        let ((orders, received), (sent, messages)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            run(&received, &sent, |_, _| Err("gone".to_owned()));
        });
        orders.send(Order { refresh: Duration::from_millis(1), ..order(1, 10) }).unwrap();
        for _ in 0..3 {
            assert_eq!(answer(&messages), (1, 10));
        }
        drop(messages);
        thread.join().unwrap();
    }
}
