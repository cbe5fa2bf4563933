//! fsck from outside: it finds each kind of damage, says exactly what it is, and puts it right without touching the
//! rest.

mod damage;
mod foreign;
mod interrupted;
mod seeded;

use lodefs_testkit::hostile::{image, sample};
