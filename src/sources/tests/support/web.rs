//! A web server for a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Gives what lies in a folder, to whoever asks. Ends with the test.
pub struct Web {
    pub url: String,
    pub asked: Arc<AtomicUsize>,
}

impl Web {
    pub async fn of(dir: &Path) -> Web {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let (dir, counter) = (dir.to_path_buf(), asked.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(connection, dir.clone()));
            }
        });
        Web { url, asked }
    }
}

async fn answer(mut connection: tokio::net::TcpStream, dir: PathBuf) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, body) = match tokio::fs::read(dir.join(path.trim_start_matches('/'))).await {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes()).await?;
    if !request.starts_with("HEAD") {
        connection.write_all(&body).await?;
    }
    Ok(())
}
