//! The pool as its users see it: simulations of who gets how much, of nodes that fail and come
//! back, of reloads and of many threads. None of them sleeps: time is an argument.

#[cfg(test)]
mod adaptive;
#[cfg(test)]
mod bounded;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod distribution;
#[cfg(test)]
mod ejection;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod hashing;
#[cfg(test)]
mod health;
#[cfg(test)]
mod latency;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod outliers;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod slow_start;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tables;
