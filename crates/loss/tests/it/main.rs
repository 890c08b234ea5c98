//! Losses against plain loops in f64, against the reference's vectors, and with extreme values at masked-out places.

mod advantages;
mod group_advantages;
mod ppo;
mod preference;
mod reward;
mod sums;
mod support;
