//! Follows each source's knocks through the doors' sequences.
