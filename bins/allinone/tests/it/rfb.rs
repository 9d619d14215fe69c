//! A client of VNC (RFC 6143) as small as one can be, over a websocket as a browser opens it.

use des::Des;
use des::cipher::{BlockEncrypt as _, KeyInit as _};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const VERSION: &[u8] = b"RFB 003.008\n";
const PASSWORD_AUTHENTICATION: u8 = 2;

/// A connection to a screen.
pub(crate) struct Rfb {
    socket: WebSocketStream<TcpStream>,
    /// What came and was not read yet.
    heard: Vec<u8>,
}

/// One picture.
pub(crate) struct Frame {
    pub(crate) pixels: Vec<u8>,
}

impl Rfb {
    /// Opens the websocket at `path` of the API at `http://HOST:PORT`.
    pub(crate) async fn open(api: &str, path: &str) -> Self {
        let address = api.strip_prefix("http://").unwrap().trim_end_matches('/');
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "binary".parse().unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "binary");
        Self { socket, heard: Vec::new() }
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        while self.heard.len() < length {
            match self.socket.next().await.expect("it goes on").unwrap() {
                Message::Binary(part) => self.heard.extend_from_slice(&part),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("that is no screen: {other:?}"),
            }
        }
        self.heard.drain(..length).collect()
    }

    async fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.read(4).await.try_into().unwrap())
    }

    async fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.read(2).await.try_into().unwrap())
    }

    async fn write(&mut self, data: &[u8]) {
        self.socket.send(Message::binary(data.to_vec())).await.unwrap();
    }

    /// Answers the screen's challenge with a password, and says whether that was right.
    pub(crate) async fn authenticate(&mut self, password: &str) -> bool {
        assert_eq!(self.read(VERSION.len()).await, VERSION);
        self.write(VERSION).await;
        let offered = self.read(1).await[0];
        let offered = self.read(offered.into()).await;
        assert_eq!(offered, [PASSWORD_AUTHENTICATION], "nobody gets in without a password");
        self.write(&[PASSWORD_AUTHENTICATION]).await;
        let mut answer = self.read(16).await;
        let mut key = [0_u8; 8];
        for (key, byte) in key.iter_mut().zip(password.bytes()) {
            // VNC takes the bits of each byte the other way round.
            *key = byte.reverse_bits();
        }
        let cipher = Des::new(&key.into());
        for block in answer.chunks_mut(8) {
            cipher.encrypt_block(block.try_into().map(<&mut [u8; 8]>::into).unwrap());
        }
        self.write(&answer).await;
        self.number().await == 0
    }

    /// Joins the others that look, and says how large the picture is.
    pub(crate) async fn join(&mut self) -> (u16, u16) {
        const SHARED: u8 = 1;
        const RAW: &[u8] = &[2, 0, 0, 1, 0, 0, 0, 0];
        self.write(&[SHARED]).await;
        let (width, height) = (self.short().await, self.short().await);
        let format = self.read(16).await;
        assert_eq!(format[0], 32, "bits a pixel");
        let name = usize::try_from(self.number().await).unwrap();
        self.read(name).await;
        self.write(RAW).await;
        (width, height)
    }

    /// The whole picture as it is now.
    pub(crate) async fn frame(&mut self, (width, height): (u16, u16)) -> Frame {
        let mut request = vec![3, 0, 0, 0, 0, 0];
        request.extend_from_slice(&width.to_be_bytes());
        request.extend_from_slice(&height.to_be_bytes());
        self.write(&request).await;
        assert_eq!(self.read(2).await, [0, 0], "an update");
        let mut pixels = Vec::new();
        for _ in 0..self.short().await {
            let (_x, _y) = (self.short().await, self.short().await);
            let (width, height) = (self.short().await, self.short().await);
            assert_eq!(self.number().await, 0, "raw");
            pixels.extend(self.read(usize::from(width) * usize::from(height) * 4).await);
        }
        Frame { pixels }
    }

    /// Waits until the other side closes, and says with which code.
    pub(crate) async fn closed(mut self) -> u16 {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("it ends without a word: {other:?}"),
            }
        }
    }
}

impl Frame {
    /// Whether it shows more than one colour.
    pub(crate) fn shows_something(&self) -> bool {
        self.pixels.chunks(4).any(|pixel| pixel != &self.pixels[..4])
    }
}
