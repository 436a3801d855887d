//! Brackets, bars, matrices and postfix marks.

use super::super::ast::{Func, Id, Node, Rel};
use super::super::lex::{Delim, Env, Tok};
use super::frame::{Arg, Frame, Kind, Sep};
use super::{Fault, Parser};

impl Parser<'_, '_> {
    pub(super) fn open_delim(&mut self, delim: Delim) -> Result<(), Fault> {
        // `]a, b[` ends with an opening bracket.
        if delim == Delim::Bracket && !self.expecting() && self.closes_reversed() {
            return self.close_top(Some(Kind::Reversed));
        }
        // "kπ (k ∈ ℤ)" is no product.
        if delim == Delim::Paren && !self.expecting() && self.top().kind == Kind::Root && self.tokens.len() < 200 {
            let ahead = [0, 1, 2, 3].map(|i| self.tokens.get(self.at + i).map(|t| &t.tok));
            let proviso = matches!(
                ahead,
                [
                    Some(Tok::Sym(_)),
                    Some(Tok::Rel(Rel::In)),
                    Some(Tok::Atom(Node::Numbers(_))),
                    Some(Tok::Close(Delim::Paren))
                ]
            );
            if proviso {
                self.tokens.remove(self.at + 3);
                return self.separator(Sep::Comma);
            }
        }
        if delim == Delim::Paren && self.opens_condition()? {
            return Ok(());
        }
        if delim == Delim::Paren && self.opens_alternative() {
            return self.separator(Sep::Or);
        }
        if delim == Delim::Paren && (self.value_at()? || self.apply()?) {
            return Ok(());
        }
        self.juxtapose()?;
        self.open(Kind::Delim(delim), None);
        Ok(())
    }

    fn closes_reversed(&self) -> bool {
        let frame = self.top();
        let one_comma = self.seps.len() == frame.seps + 1;
        one_comma && matches!(frame.kind, Kind::Reversed | Kind::Delim(Delim::Bracket | Delim::Paren))
    }

    pub(super) fn close_delim(&mut self, delim: Delim) -> Result<(), Fault> {
        if delim == Delim::Bracket && self.expecting() && !self.inside(&[Delim::Bracket, Delim::Paren]) {
            self.open(Kind::Reversed, None);
            return Ok(());
        }
        if delim == Delim::Bar && self.top().kind == Kind::Delim(Delim::Evaluated) {
            self.close_top(Some(Kind::Delim(Delim::Evaluated)))?;
            return self.evaluation(false);
        }
        self.close_top(Some(Kind::Delim(delim)))
    }

    fn inside(&self, delims: &[Delim]) -> bool {
        matches!(self.top().kind, Kind::Delim(d) if delims.contains(&d)) || self.top().kind == Kind::Reversed
    }

    /// A plain bar opens or closes an absolute value, or separates a set from its condition.
    pub(super) fn bar(&mut self) -> Result<(), Fault> {
        if self.top().kind == Kind::Bar && !self.expecting() {
            return self.close_top(Some(Kind::Bar));
        }
        if self.is_evaluation() {
            return self.evaluation(true);
        }
        if self.top().kind == Kind::Delim(Delim::Set) && !self.expecting() && self.seps.len() == self.top().seps {
            return self.separator(Sep::SuchThat);
        }
        if self.is_given() {
            return self.separator(Sep::SuchThat);
        }
        // {x | x > 1}, with braces that LaTeX would not show.
        let letter = self.last_value().is_some_and(|id| matches!(self.arena.node(id), Node::Sym(_)));
        let bare = self.top().kind == Kind::Delim(Delim::Group) && self.top().arg.is_none() && self.frames.len() == 2;
        if bare && letter && !self.expecting() && self.top_op().is_none() && self.seps.len() == self.top().seps {
            self.top_mut().kind = Kind::Delim(Delim::Set);
            return self.separator(Sep::SuchThat);
        }
        self.juxtapose()?;
        self.open(Kind::Bar, None);
        Ok(())
    }

    pub(super) fn close_env(&mut self) -> Result<(), Fault> {
        match self.top().kind {
            Kind::Env(env) => self.close_top(Some(Kind::Env(env))),
            _ => Err(Fault::Syntax),
        }
    }

    pub(super) fn cell(&mut self) -> Result<(), Fault> {
        match self.top().kind {
            Kind::Env(Env::Rows) => Ok(()),
            Kind::Env(Env::Cases) => self.case_cell(),
            Kind::Env(_) => self.end_item(),
            _ => Err(Fault::Syntax),
        }
    }

    pub(super) fn row(&mut self) -> Result<(), Fault> {
        match self.top().kind {
            Kind::Env(_) => {
                self.end_item()?;
                if self.top().kind == Kind::Env(Env::Cases) {
                    self.fold_case()?;
                }
                if self.row_ends.last() != Some(&self.items.len()) {
                    self.row_ends.push(self.items.len());
                }
                Ok(())
            }
            _ if self.expecting() => Ok(()),
            _ => self.separator(Sep::Comma),
        }
    }

    /// Closes the innermost frame. `closer` is what was met; `None` at the end of the text.
    pub(super) fn close_top(&mut self, closer: Option<Kind>) -> Result<(), Fault> {
        let frame = *self.top();
        let matches = match (frame.kind, closer) {
            (_, None) => true,
            (Kind::Delim(a), Some(Kind::Delim(b))) => {
                let mixed =
                    [(Delim::Paren, Delim::Bracket), (Delim::Bracket, Delim::Paren), (Delim::Set, Delim::Group)];
                a == b || mixed.contains(&(a, b))
            }
            (Kind::Reversed, Some(Kind::Reversed | Kind::Delim(Delim::Bracket | Delim::Paren))) => true,
            (Kind::Delim(Delim::Bracket | Delim::Paren), Some(Kind::Reversed)) => true,
            (Kind::Bar, Some(Kind::Bar)) | (Kind::Env(_), Some(Kind::Env(_))) => true,
            // `\left. x \right|` and stray closers.
            _ => false,
        };
        if !matches {
            // A brace that closes nothing inside a bracket: give up the bracket, not the text.
            return if frame.kind == Kind::Root && self.stray(closer) { Ok(()) } else { Err(Fault::Syntax) };
        }
        if frame.kind == Kind::Single {
            return Err(Fault::Syntax);
        }
        // "(7" is 7, but `<7` is no vector, and who knows how `[1, 2` or `|-7` go on.
        let goes_on = match frame.kind {
            Kind::Bar => true,
            Kind::Delim(delim) => {
                matches!(
                    delim,
                    Delim::Angle | Delim::Bar | Delim::Bracket | Delim::Floor | Delim::Ceil | Delim::Evaluated
                )
            }
            _ => false,
        };
        if closer.is_none() && goes_on {
            return Err(Fault::Syntax);
        }
        self.end_item()?;
        let bracket = matches!(frame.kind, Kind::Reversed | Kind::Delim(Delim::Paren | Delim::Set));
        if closer.is_none() && bracket && self.items.len() > frame.items + 1 {
            return Err(Fault::Syntax);
        }
        let node = match frame.kind {
            Kind::Env(env) => self.env_node(env, frame)?,
            _ => self.bracket_node(frame, closer)?,
        };
        self.frames.pop();
        match frame.arg {
            Some(arg) => match self.deliver(arg, node)? {
                // The bracket of `f(x)` is not the one that ends the argument of `\sin f(x)`.
                Some(id) => self.operand(id, !matches!(arg, Arg::Apply(_))),
                None => Ok(()),
            },
            None => self.operand(node, frame.kind != Kind::Single),
        }
    }

    /// A closing brace with no opening one at the very end is a slip of extraction.
    fn stray(&self, closer: Option<Kind>) -> bool {
        let slip = match closer {
            Some(Kind::Delim(Delim::Group | Delim::Set)) => true,
            // "5)" is 5, but "1, 2)" may be the end of any bracket.
            Some(Kind::Delim(Delim::Paren)) => self.seps.len() == self.top().seps,
            _ => false,
        };
        slip && self.at == self.tokens.len()
    }

    fn take_items(&mut self, frame: Frame) -> Vec<Id> {
        self.items.split_off(frame.items)
    }

    fn bracket_node(&mut self, frame: Frame, closer: Option<Kind>) -> Result<Id, Fault> {
        let count = self.items.len() - frame.items;
        let left_square = frame.kind == Kind::Delim(Delim::Bracket);
        let right_square = closer == Some(Kind::Delim(Delim::Bracket));
        match frame.kind {
            Kind::Delim(Delim::Set) => return self.set_node(frame),
            Kind::Delim(Delim::Floor) => return self.unary(frame, Func::Floor),
            Kind::Delim(Delim::Ceil) => return self.unary(frame, Func::Ceil),
            Kind::Delim(Delim::Bar) | Kind::Bar => return self.unary(frame, Func::Abs),
            _ => {}
        }
        if count == 0 {
            return Err(Fault::Syntax);
        }
        if count == 1 {
            self.seps.truncate(frame.seps);
            return Ok(self.items.pop().expect("one item was counted"));
        }
        let plain_pair = count == 2 && matches!(self.seps[frame.seps..], [Sep::Comma | Sep::Semi, ..]);
        if frame.kind == Kind::Delim(Delim::Group) {
            if frame.arg.is_none() && self.top_op().is_none() && self.frames.len() == 2 {
                return self.set_node(frame);
            }
            return self.items_node(frame);
        }
        let is_relation = |id: &Id| matches!(self.arena.node(*id), Node::Chain { .. });
        if self.items[frame.items..].iter().all(is_relation) {
            return self.items_node(frame);
        }
        if plain_pair && frame.arg.is_none() {
            let (hi, lo) = (self.items.pop().expect("two items"), self.items.pop().expect("two items"));
            self.seps.truncate(frame.seps);
            let closed = match frame.kind {
                Kind::Reversed => (false, right_square),
                _ => (left_square, right_square && closer != Some(Kind::Reversed)),
            };
            let open_pair = frame.kind == Kind::Delim(Delim::Paren) && closer != Some(Kind::Reversed) && !right_square;
            let angle = frame.kind == Kind::Delim(Delim::Angle);
            let infinite = self.arena.any(lo, |n| *n == Node::Infinity) || self.arena.any(hi, |n| *n == Node::Infinity);
            let node = if angle || (open_pair && !infinite) {
                Node::Tuple(self.arena.make_list(&[lo, hi]))
            } else {
                Node::Interval { lo, hi, closed }
            };
            return Ok(self.arena.push(node)?);
        }
        let ids = self.take_items(frame);
        self.seps.truncate(frame.seps);
        let list = self.arena.make_list(&ids);
        Ok(self.arena.push(Node::Tuple(list))?)
    }

    fn unary(&mut self, frame: Frame, func: Func) -> Result<Id, Fault> {
        self.seps.truncate(frame.seps);
        let items = self.take_items(frame);
        let [id] = items[..] else { return Err(Fault::Syntax) };
        if func == Func::Abs {
            return self.determinant(id);
        }
        Ok(self.arena.push(Node::Call(func, id))?)
    }

    fn set_node(&mut self, frame: Frame) -> Result<Id, Fault> {
        if self.seps[frame.seps..].first() == Some(&Sep::SuchThat) {
            let ids = self.take_items(frame);
            let either = self.seps[frame.seps..].contains(&Sep::Or);
            self.seps.truncate(frame.seps);
            let [what, conditions @ ..] = &ids[..] else { return Err(Fault::Syntax) };
            let condition = match conditions {
                [one] => *one,
                [] => return Err(Fault::Syntax),
                many => {
                    let list = self.arena.make_list(many);
                    self.arena.push(if either { Node::List(list) } else { Node::All(list) })?
                }
            };
            return Ok(self.arena.push(Node::SetOf(*what, condition))?);
        }
        let ids = self.take_items(frame);
        self.seps.truncate(frame.seps);
        if let [one] = ids[..]
            && matches!(self.arena.node(one), Node::All(_))
        {
            return Ok(one);
        }
        let list = self.arena.make_list(&ids);
        Ok(self.arena.push(Node::Set(list))?)
    }

    fn env_node(&mut self, env: Env, frame: Frame) -> Result<Id, Fault> {
        if env == Env::Cases {
            self.fold_case()?;
        }
        let ends = self.row_ends.split_off(frame.rows);
        let ids = self.take_items(frame);
        self.seps.truncate(frame.seps);
        if ids.is_empty() {
            return Err(Fault::Syntax);
        }
        let relation = ids.iter().any(|&id| matches!(self.arena.node(id), Node::Chain { .. }));
        let list = self.arena.make_list(&ids);
        if matches!(env, Env::Rows | Env::Cases) || relation {
            if let [one] = ids[..] {
                return Ok(one);
            }
            return Ok(self.arena.push(Node::All(list))?);
        }
        let mut rows: Vec<usize> = ends.iter().map(|&end| end - frame.items).collect();
        if rows.last() != Some(&ids.len()) {
            rows.push(ids.len());
        }
        let cols = rows[0];
        let regular = rows.iter().enumerate().all(|(i, &end)| end == (i + 1) * cols);
        if !regular || cols == 0 || rows.len() > 4000 || cols > 4000 {
            return Err(Fault::Syntax);
        }
        let matrix = self.arena.push(Node::Matrix { rows: rows.len() as u16, cols: cols as u16, entries: list })?;
        if env == Env::Determinant { self.determinant(matrix) } else { Ok(matrix) }
    }

    /// The items of a frame that is no bracket: one value, a list, or alternatives.
    pub(super) fn items_node(&mut self, frame: Frame) -> Result<Id, Fault> {
        let seps = self.seps.split_off(frame.seps);
        let ids = self.take_items(frame);
        let node = match ids[..] {
            [] => return Err(Fault::Syntax),
            [one] => return Ok(one),
            _ => {
                let first_name = |id: Id| match self.arena.node(id) {
                    Node::Chain { operands, .. } => {
                        self.arena.list(*operands).first().map(|&l| self.arena.node(l).clone())
                    }
                    _ => None,
                };
                let names: Vec<Option<Node>> = ids.iter().map(|&id| first_name(id)).collect();
                let named = names.iter().all(Option::is_some);
                let distinct = names.windows(2).any(|w| w[0] != w[1]);
                let split = |sep: &Sep| matches!(sep, Sep::Or | Sep::Semi);
                if named && distinct && seps.iter().any(split) && !seps.iter().all(split) {
                    // "x = 1, y = 2 or x = 3, y = 4": groups that hold together.
                    let mut groups = Vec::new();
                    let mut start = 0;
                    for end in 1..=ids.len() {
                        if end == ids.len() || split(&seps[end - 1]) {
                            let group = if end - start == 1 {
                                ids[start]
                            } else {
                                let list = self.arena.make_list(&ids[start..end]);
                                self.arena.push(Node::All(list))?
                            };
                            groups.push(group);
                            start = end;
                        }
                    }
                    let list = self.arena.make_list(&groups);
                    Node::List(list)
                } else if named && distinct && !seps.contains(&Sep::Or) {
                    Node::All(self.arena.make_list(&ids))
                } else if named && seps.iter().all(|sep| *sep == Sep::And) && ids.iter().all(|&id| self.orders(id)) {
                    // "x ≥ 2 and x < 7" hold together.
                    Node::All(self.arena.make_list(&ids))
                } else {
                    Node::List(self.arena.make_list(&ids))
                }
            }
        };
        Ok(self.arena.push(node)?)
    }

    /// A chain of < ≤ > ≥.
    fn orders(&self, id: Id) -> bool {
        matches!(*self.arena.node(id), Node::Chain { operands, rels }
            if self.arena.chain_rels(rels, self.arena.list(operands).len()).iter().all(|rel| rel.is_order()))
    }
}
