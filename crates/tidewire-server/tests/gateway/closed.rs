//! Why connections ended, as operators ask for it.

use serde_json::{Value, json};
use tidewire_server::config::DEV_API_KEY;

use crate::client::{ACME_KEY, Client, acme_token, api, dev, dev_token, rest, start, strict};

async fn closed(server: &tidewire_server::Server, query: &str, key: &str) -> Vec<Value> {
    let reply = rest(server, "GET", &format!("/v1/connections/closed{query}"), key, "").await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()["closed"].as_array().unwrap().clone()
}

#[tokio::test]
async fn how_a_connection_ended_is_remembered_by_user_and_code() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let bob = Client::with_token(&server, &dev_token("bob")).await;
    let told = json!({"code": 4001, "reason": "your plan ended"});
    api(&server, "disconnect", json!({"user": "ann", "disconnect": told})).await;
    ann.closed().await;
    drop(bob);
    let mut all = Vec::new();
    while all.len() < 2 {
        all = closed(&server, "", DEV_API_KEY).await;
    }
    let of_ann = closed(&server, "?user=ann", DEV_API_KEY).await;
    assert_eq!(of_ann.len(), 1);
    assert_eq!(
        (&of_ann[0]["code"], &of_ann[0]["reason"], &of_ann[0]["transport"]),
        (&json!(4001), &json!("your plan ended"), &json!("websocket"))
    );
    assert_eq!(closed(&server, "?code=0", DEV_API_KEY).await[0]["user"], "bob");
    assert_eq!(closed(&server, "?limit=1", DEV_API_KEY).await.len(), 1);
    let refused = rest(&server, "GET", "/v1/connections/closed?limit=0", DEV_API_KEY, "").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn how_connections_of_one_tenant_ended_is_no_business_of_another() {
    let server = start(strict()).await;
    let mut ann = Client::with_token(&server, &acme_token("ann")).await;
    ann.send("[]").await;
    ann.closed().await;
    let reply = rest(&server, "GET", "/v1/connections/closed", "wrong", "").await;
    assert_eq!(reply.status, 401);
    while closed(&server, "?user=ann&code=3501", ACME_KEY).await.is_empty() {}
}
