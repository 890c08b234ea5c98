//! The token cache: made once, keyed by everything that it is made of.
