//! Domains in the order of their dependencies.

use std::collections::BTreeMap;

use crate::plan::types::Domain;
use crate::plan::values::Name;

/// Domains that wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("domains wait for each other: {}", chain(.0))]
pub struct Cycle(pub Vec<Name>);

fn chain(names: &[Name]) -> String {
    let names: Vec<_> = names.iter().chain(names.first()).map(Name::as_str).collect();
    names.join(" after ")
}

/// The positions of all domains, each behind those that it names in `after`, and else as they stand in the plan. Names that
/// are no domain's count for nothing.
///
/// # Errors
/// [`Cycle`] with the domains that wait for each other.
pub fn order(domains: &[Domain]) -> Result<Vec<usize>, Cycle> {
    let by_name: BTreeMap<&Name, usize> =
        domains.iter().enumerate().map(|(position, domain)| (&domain.name, position)).collect();
    let mut visit = Visit {
        domains,
        by_name,
        state: vec![State::New; domains.len()],
        order: Vec::new(),
        way: Vec::new(),
    };
    for position in 0..domains.len() {
        visit.visit(position)?;
    }
    Ok(visit.order)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    OnTheWay,
    Done,
}

struct Visit<'d> {
    domains: &'d [Domain],
    by_name: BTreeMap<&'d Name, usize>,
    state: Vec<State>,
    order: Vec<usize>,
    way: Vec<usize>,
}

impl Visit<'_> {
    /// A chain of domains is as long as the plan at most, and that has a limit.
    fn visit(&mut self, position: usize) -> Result<(), Cycle> {
        match self.state[position] {
            State::Done => return Ok(()),
            State::OnTheWay => {
                let from = self.way.iter().position(|other| *other == position).unwrap_or(0);
                return Err(Cycle(
                    self.way[from..].iter().map(|at| self.domains[*at].name.clone()).collect(),
                ));
            }
            State::New => {}
        }
        self.state[position] = State::OnTheWay;
        self.way.push(position);
        for before in &self.domains[position].after {
            if let Some(before) = self.by_name.get(before) {
                self.visit(*before)?;
            }
        }
        self.way.pop();
        self.state[position] = State::Done;
        self.order.push(position);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::types::PlanFile;

    fn ordered(text: &str) -> Result<Vec<String>, Cycle> {
        let text: String = text
            .split_whitespace()
            .map(|domain| {
                let (name, after) = domain.split_once('<').unwrap_or((domain, ""));
                let after: Vec<_> = after.split(',').filter(|name| !name.is_empty()).collect();
                format!("[[domain]]\nname = {name:?}\nafter = {after:?}\n")
            })
            .collect();
        let plan: PlanFile = toml::from_str(&text).expect("domains");
        Ok(order(&plan.domain)?.into_iter().map(|at| plan.domain[at].name.to_string()).collect())
    }

    #[test]
    fn what_others_wait_for_comes_first_and_the_rest_as_it_stands() {
        assert_eq!(ordered("c<a,b b<a a d").expect("no cycle"), ["a", "b", "c", "d"]);
        assert_eq!(ordered("b a").expect("no cycle"), ["b", "a"]);
        assert_eq!(ordered("a<unknown").expect("no cycle"), ["a"]);
        assert_eq!(ordered("").expect("no cycle"), Vec::<String>::new());
    }

    #[test]
    fn a_cycle_is_named_without_those_that_only_lead_to_it() {
        let cycle = ordered("x<a a<b b<c c<a").expect_err("a cycle");
        assert_eq!(cycle.to_string(), "domains wait for each other: a after b after c after a");
        assert_eq!(ordered("a<a").expect_err("a cycle").0.len(), 1);
    }
}
