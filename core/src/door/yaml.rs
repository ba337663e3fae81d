//! Doors as operators write them.
