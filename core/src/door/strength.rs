//! How hard a knock is to guess.
