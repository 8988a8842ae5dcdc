//! Structs of named counters.

/// Declares a struct of counters whose names in a snapshot begin with a prefix, and whose help is their
/// documentation.
macro_rules! counters {
    ($(#[doc = $doc:literal])* $name:ident, $prefix:literal, {
        $($counter:ident = $help:literal,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Default)]
        #[non_exhaustive]
        pub struct $name {
            $(#[doc = $help] pub $counter: x0x_core::Counter,)*
        }

        impl $name {
            /// All values now.
            #[must_use]
            pub fn snapshot(&self) -> Vec<x0x_core::Metric> {
                vec![$(self.$counter.metric(concat!($prefix, stringify!($counter)), $help),)*]
            }
        }
    };
}
