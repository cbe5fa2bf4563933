//! stub
pub(crate) struct Inherited { pub(crate) perm: u32, pub(crate) access: Option<Vec<u8>>, pub(crate) default: Option<Vec<u8>> }
pub(crate) fn inherit(_d: &[u8], _perm: u32, _umask: u32, _dir: bool) -> Result<Inherited, ()> { Err(()) }
pub(crate) struct Equivalent { pub(crate) perm: u32, pub(crate) exact: bool }
pub(crate) struct Acl;
impl Acl { pub(crate) fn parse(_b: &[u8]) -> Result<Self, ()> { Err(()) } pub(crate) fn equivalent_mode(&self) -> Equivalent { Equivalent{perm:0,exact:false} } pub(crate) fn with_perm(&self, _p: u32) -> Self { Acl } pub(crate) fn to_bytes(&self) -> Vec<u8> { vec![] } }
