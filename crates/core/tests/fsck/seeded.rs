//! What every test of a seeded damage does: check, repair, check, compare.

use std::collections::BTreeMap;

use lodefs_core::fsck::{Code, Finding, Object, Outcome, Severity};
use lodefs_pmem::Domain;

use crate::image::Image;
use crate::sample::{Content, SAMPLE, Sample, contents};

/// A damaged sample volume, and what is to be found on it.
pub(crate) struct Seeded {
    pub(crate) image: Image,
    expected: Vec<(Code, Object)>,
    /// Paths that the damage or its remedy changes, and everything below them.
    touched: Vec<&'static str>,
}

impl Seeded {
    /// Damages the sample volume.
    pub(crate) fn new(damage: impl FnOnce(&mut Image, &Sample)) -> Self {
        let mut image = SAMPLE.image.clone();
        damage(&mut image, &SAMPLE);
        assert!(image != SAMPLE.image, "nothing was damaged");
        Self { image, expected: Vec::new(), touched: Vec::new() }
    }

    /// Goes on with another image.
    pub(crate) fn of(image: Image) -> Self {
        Self { image, expected: Vec::new(), touched: Vec::new() }
    }

    /// One more finding.
    pub(crate) fn finds(mut self, code: Code, object: Object) -> Self {
        self.expected.push((code, object));
        self
    }

    /// One more finding, about the inode of a path.
    pub(crate) fn finds_at(self, code: Code, path: &str) -> Self {
        let ino = lodefs_core::Ino(SAMPLE.ino(path));
        self.finds(code, Object::Inode(ino))
    }

    /// One more path that will not be as before.
    pub(crate) fn touches(mut self, path: &'static str) -> Self {
        self.touched.push(path);
        self
    }

    /// Checks that exactly this is found, that declining leaves it, that agreeing repairs it, and that nothing else is
    /// touched. Returns what is on the repaired volume.
    pub(crate) fn verify(self) -> BTreeMap<String, Content> {
        let report = self.image.check().unwrap();
        assert_eq!(found(&report.findings), self.expected, "{:#?}", report.findings);
        self.verify_declined();
        let (report, repaired) = self.image.repair(&mut |_| true);
        let report = report.unwrap();
        let failed: Vec<&Finding> =
            report.findings.iter().filter(|f| f.outcome != Outcome::Repaired).collect();
        assert!(failed.is_empty(), "not repaired: {failed:#?}");
        for (code, object) in &self.expected {
            let is_it = |finding: &&Finding| finding.code == *code && finding.object == *object;
            assert!(report.findings.iter().any(|f| is_it(&f)), "{code} of {object} is not in the report");
        }
        let again = repaired.check().unwrap();
        assert_eq!(again.findings, [], "after the repair");
        // Where metadata lives in private copies for a while, the result is the same.
        let (other, repaired_there) = self.image.repair_as(Domain::Page, &mut |_| true);
        assert_eq!(found(&other.unwrap().findings), found(&report.findings));
        let but_times = |image: &Image| -> Vec<_> {
            let all = contents(image).into_iter();
            all.map(|(path, content)| (path, content.ino, content.bytes, content.xattrs)).collect()
        };
        assert!(but_times(&repaired_there) == but_times(&repaired));
        assert_eq!(repaired_there.check().unwrap().findings, [], "after the repair of pages");
        let reopened = repaired.open_and(|fs| assert!(fs.recovery().was_clean)).unwrap();
        assert_eq!(reopened.check().unwrap().findings, [], "after opening and closing");
        self.compare(contents(&repaired))
    }

    /// Without consent, whatever asks for it stays as it is.
    fn verify_declined(&self) {
        let asked = |findings: &[Finding]| -> Vec<(Code, Object)> {
            found(findings).into_iter().filter(|(code, _)| code.asks()).collect()
        };
        let (report, left) = self.image.repair(&mut |_| false);
        for finding in report.unwrap().findings {
            let expected = if finding.code.asks() { Outcome::Declined } else { Outcome::Repaired };
            assert_eq!(finding.outcome, expected, "{finding}");
        }
        let report = left.check().unwrap();
        let expected: Vec<_> = self.expected.iter().filter(|(code, _)| code.asks()).cloned().collect();
        assert_eq!(asked(&report.findings), expected, "after declining");
    }

    fn compare(&self, after: BTreeMap<String, Content>) -> BTreeMap<String, Content> {
        let is_touched = |path: &str| {
            path.starts_with("/lost+found")
                || self.touched.iter().any(|touched| {
                    path == *touched || path.strip_prefix(touched).is_some_and(|rest| rest.starts_with('/'))
                })
        };
        let before: Vec<_> =
            contents(&SAMPLE.image).into_iter().filter(|(path, _)| !is_touched(path)).collect();
        let others: Vec<_> =
            after.iter().filter(|(path, _)| !is_touched(path)).map(|(p, c)| (p.clone(), c.clone())).collect();
        let names = |all: &[(String, Content)]| all.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&before), names(&others));
        for (before, after) in before.iter().zip(&others) {
            assert!(before == after, "{} changed: {} became {}", before.0, before.1.attr, after.1.attr);
        }
        after
    }
}

fn found(findings: &[Finding]) -> Vec<(Code, Object)> {
    findings.iter().map(|finding| (finding.code, finding.object.clone())).collect()
}

/// Notes are no inconsistency: the next open puts them right.
pub(crate) fn is_note(code: Code) -> bool {
    code.severity() == Severity::Note
}
