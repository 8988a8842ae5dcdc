//! Tests of the control messages.
