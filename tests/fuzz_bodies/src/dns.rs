//! Questions and answers about names.

/// A DNS message: read as a question of the program's, and as the answer to the very question that it holds; names that come
/// out are such as hosts have, whatever they were made of.
pub fn dns_message(data: &[u8]) -> bool {
    netd::read_any_message(data).unwrap()
}
