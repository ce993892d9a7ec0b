//! Listing within a step: questions to this node and its peers, their answers, and the records that are read for them.

use super::{Node, Step};
use crate::listing::answers::{Answers, HomeState};
use crate::listing::lister::Lister;
use crate::listing::{Asked, ListingCalls, ListingContext};
use crate::message::client::ClientId;
use crate::message::listing::{ListAnswer, ListQuestion, ListRequest};
use crate::message::{Message, ReplicaResponse, RequestId};
use crate::replica::Caller;
use crate::store::command::{StoreId, StoreResult};
use crate::value::dot::NodeId;

impl Node {
    /// Begins a client's list.
    pub(super) fn list(&mut self, step: &mut Step, id: ClientId, mut request: ListRequest) {
        request.timeout = request.timeout.min(super::inputs::BUDGET_MAX);
        self.with_lister(step, |lister, cx| lister.begin(cx, Asked { id, request }));
    }

    /// Goes on with lists for which an answer is late.
    pub(super) fn tick_lists(&mut self, step: &mut Step) {
        if self.lister.wake_at().is_some_and(|at| at <= step.now.instant) {
            self.with_lister(step, Lister::tick);
        }
    }

    /// Takes a question.
    pub(super) fn question(&mut self, step: &mut Step, from: NodeId, request_id: RequestId, question: ListQuestion) {
        self.with_answers(step, |answers, cx, home| answers.begin(cx, home, from, request_id, question));
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, step: &mut Step, from: NodeId, request_id: RequestId, answer: ListAnswer) {
        self.with_lister(step, |lister, cx| lister.answered(cx, from, request_id, answer));
    }

    /// Takes a part of the index.
    pub(super) fn index_read(&mut self, step: &mut Step, id: StoreId, result: StoreResult) {
        self.with_answers(step, |answers, cx, home| answers.stored(cx, home, id, result));
    }

    /// Takes a record that was read for a list.
    pub(super) fn read_for_list(&mut self, step: &mut Step, request_id: RequestId, response: &ReplicaResponse) {
        let wall = step.now.wall;
        let stray = self.with_answers(step, |answers, cx, _| answers.on_response(cx, wall, request_id, response));
        if let Some(key) = stray {
            self.replica.index(step.now, key, &mut step.replica);
        }
    }

    fn with_lister(&mut self, step: &mut Step, act: impl FnOnce(&mut Lister, &mut ListingContext<'_>)) {
        self.with_listing(step, |lister, _, cx, _| act(lister, cx));
    }

    fn with_answers<T>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Answers, &mut ListingContext<'_>, &mut HomeState<'_>) -> T,
    ) -> T {
        self.with_listing(step, |_, answers, cx, home| act(answers, cx, home))
    }

    /// Lets `act` list, and carries out what it calls for.
    fn with_listing<T>(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Lister, &mut Answers, &mut ListingContext<'_>, &mut HomeState<'_>) -> T,
    ) -> T {
        let mut calls = ListingCalls::default();
        let mut cx = ListingContext {
            now: step.now.instant,
            held: &self.held,
            all_speak: self.replica.all_speak(),
            liveness: &self.liveness,
            out: &mut calls,
        };
        let is_indexed = self.key_sweep.is_whole();
        let mut home = HomeState { is_indexed, exchange: &self.exchange, replica: &mut self.replica };
        let result = act(&mut self.lister, &mut self.answers, &mut cx, &mut home);
        self.carry_out_listing(step, calls);
        result
    }

    fn carry_out_listing(&mut self, step: &mut Step, calls: ListingCalls) {
        let ListingCalls { questions, answers, reads, stores, replies } = calls;
        let me = self.config.node;
        step.effects.stores.extend(stores);
        step.effects.lists.extend(replies);
        for (request_id, read) in reads {
            self.replica.take_request(step.now, Caller::Local(request_id), read, &mut step.replica);
        }
        for (to, request_id, question) in questions {
            if to == me {
                self.question(step, me, request_id, question);
            } else {
                self.send(step, to, Message::List(request_id, Box::new(question)));
            }
        }
        for (to, request_id, answer) in answers {
            if to == me {
                self.answer(step, me, request_id, answer);
            } else {
                self.send(step, to, Message::Listed(request_id, answer));
            }
        }
    }
}
