//! stub
use rustix::io::Errno;
use crate::types::XattrMode;
#[derive(Default)] pub(crate) struct XattrSet;
#[derive(Debug)] pub(crate) struct XattrError;
impl XattrError { pub(crate) fn errno(&self) -> Errno { Errno::NODATA } }
impl XattrSet { pub(crate) fn decode(_b: &[u8]) -> Result<Self, XattrError> { Err(XattrError) } pub(crate) fn get(&self, _n: &[u8]) -> Option<&[u8]> { None }
pub(crate) fn set(&mut self, _n: &[u8], _v: &[u8], _m: XattrMode) -> Result<(), XattrError> { Err(XattrError) } pub(crate) fn remove(&mut self, _n: &[u8]) -> Result<(), XattrError> { Err(XattrError) } pub(crate) fn list(&self) -> Vec<u8> { vec![] } pub(crate) fn encode(&self) -> Vec<u8> { vec![] } pub(crate) fn is_empty(&self) -> bool { true } }
