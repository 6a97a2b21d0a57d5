//! All tests that need more than one file of the program: one binary, linked once.

mod commands;
mod harness;
mod process;
mod sim;

mod contract {
    pub mod broker {
        pub mod roles {
            pub fn play(role: &str, _: &[&str]) {
                crate::harness::child::say(&format!("no such role: {role}"));
            }
        }
    }
}
