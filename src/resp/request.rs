//! A request as its raw frame and the places of its arguments.

/// Where an argument's payload stands in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

/// A complete request in array form (inline commands are re-encoded first). `spans` is never empty.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    frame: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Request<'a> {
    #[must_use]
    pub fn new(frame: &'a [u8], spans: &'a [Span]) -> Self {
        debug_assert!(!spans.is_empty(), "a request has at least the command's name");
        Self { frame, spans }
    }

    /// The bytes as they stood on the wire.
    #[must_use]
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Number of arguments, the command's name included.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Argument `index` (0 is the command's name), or nothing past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| self.payload(*span))
    }

    /// Argument `index`; empty past the end.
    #[must_use]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// All arguments from `first` on.
    pub fn args_from(&self, first: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let this = *self;
        this.spans
            .get(first..)
            .unwrap_or_default()
            .iter()
            .map(move |span| this.payload(*span))
    }

    fn payload(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        self.frame.get(start..start + span.len as usize).unwrap_or_default()
    }
}

/// A request with its own memory, for tests and for what is built here.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    frame: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedRequest {
    /// Encodes arguments as an array of bulk strings. `args` must not be empty.
    #[must_use]
    pub fn new<A: AsRef<[u8]>>(args: &[A]) -> Self {
        let mut frame = Vec::new();
        let mut spans = Vec::with_capacity(args.len());
        super::write::array(&mut frame, args.len());
        for arg in args {
            let payload = arg.as_ref();
            super::write::bulk(&mut frame, payload);
            let start = frame.len() - payload.len() - 2;
            spans.push(Span {
                start: u32::try_from(start).unwrap_or(u32::MAX),
                len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            });
        }
        Self { frame, spans }
    }

    #[must_use]
    pub fn as_request(&self) -> Request<'_> {
        Request::new(&self.frame, &self.spans)
    }
}
