//! An echo on a tunnel's own socket, whose limits are raised so that the cases' longest messages pass.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use relay_tunnel::{close_code, websocket, websocket_config};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, sink},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, Role},
};

const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How long the peer may take to read why it was refused.
const FAREWELL: Duration = Duration::from_secs(1);

/// Sends back what comes, until the WebSocket ends.
pub(crate) async fn echo<S>(stream: S, leftover: Vec<u8>, role: Role)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = websocket_config().max_message_size(Some(MAX_BYTES)).max_frame_size(Some(MAX_BYTES));
    let mut socket = websocket(stream, leftover, role, config.max_write_buffer_size(2 * MAX_BYTES)).await;
    while let Some(read) = socket.next().await {
        match read {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
            Ok(_) => {} // Pings and closes are answered by the library.
            Err(error) => {
                if let Some(code) = close_code(&error) {
                    // What cannot be said to a peer that is gone is not said.
                    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
                }
                break;
            }
        }
    }
    let stream = socket.get_mut();
    // Bytes that nobody read would have the kernel take back the last frame.
    let _ = stream.shutdown().await;
    let _ = timeout(FAREWELL, copy(&mut stream.take(MAX_BYTES as u64), &mut sink())).await;
}
