//! stub
#[derive(Debug, Default)]
pub struct Set;
impl Set {
    pub fn get(&self, _: &str) -> Option<&std::sync::Arc<super::Task>> {
        None
    }
}
