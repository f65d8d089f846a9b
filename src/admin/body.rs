//! Response bodies: a text at once, or pages as they are made.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Pages that may wait for a slow reader, the one being made not counted.
const PAGES_WAITING_MAX: usize = 2;

/// What a stream's pump writes to. An error cuts the response off, so that the reader sees that something is missing.
pub(super) type Pages = mpsc::Sender<io::Result<Bytes>>;

#[derive(Debug)]
pub(super) enum ResponseBody {
    Text(Option<Bytes>),
    Pages(mpsc::Receiver<io::Result<Bytes>>),
}

impl ResponseBody {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(Some(text.into()))
    }

    pub(super) fn pages() -> (Pages, Self) {
        let (sender, receiver) = mpsc::channel(PAGES_WAITING_MAX);
        (sender, Self::Pages(receiver))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Pages(pages) => pages
                .poll_recv(context)
                .map(|page| page.map(|page| page.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Pages(_) => SizeHint::default(),
        }
    }
}
