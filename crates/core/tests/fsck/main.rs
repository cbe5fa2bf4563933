//! fsck from outside: it finds each kind of damage, says exactly what it is, and puts it right without touching the
//! rest.

mod damage;
mod image;
mod interrupted;
mod random;
mod sample;
mod seeded;
