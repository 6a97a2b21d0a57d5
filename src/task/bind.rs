//! stub
pub fn bind(
    _: &str,
    _: Option<&[super::Param]>,
    _: &[Box<super::RawValue>],
    _: &[(String, Box<super::RawValue>)],
) -> Result<Vec<(String, Box<super::RawValue>)>, crate::wire::Exception> {
    Ok(vec![])
}
