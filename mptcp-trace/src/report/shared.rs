//! The gatherer while findings arrive.

use std::{cell::RefCell, rc::Rc};

use super::gather::Gathered;
use crate::{model::Finding, observe::Observer};

/// A gatherer shared by the stages and the report.
#[derive(Clone, Debug, Default)]
pub struct Shared(Rc<RefCell<Gathered>>);

impl Shared {
    /// Returns the sums, after all findings.
    #[must_use]
    pub fn finish(&self) -> Gathered {
        let mut gathered = self.0.take();
        gathered.finish();
        gathered
    }
}

impl Observer for Shared {
    fn finding<'a>(&mut self, finding: &'a Finding, _path_of: &dyn Fn(u64) -> Option<&'a str>) {
        self.0.borrow_mut().add(finding);
    }
}
