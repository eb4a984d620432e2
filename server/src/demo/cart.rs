//! A cart that never says no, and a checkout that is never wrong.

use super::Trouble;
use super::rows::{elements, single};
use super::story::Story;

impl Story {
    pub(super) async fn cart(&mut self) -> Result<(), Trouble> {
        self.a_cart_and_orders().await?;
        self.two_devices().await?;
        self.checkout().await
    }

    async fn a_cart_and_orders(&mut self) -> Result<(), Trouble> {
        self.chapter("A leaderless cart, strong orders");
        let client = self.cluster.node(0)?.connect().await?;
        for sql in [
            "CREATE TABLE carts (customer int PRIMARY KEY, items crdt_set(text))\nWITH (replication = 'leaderless')",
            "CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, items text[] NOT NULL)",
            "INSERT INTO carts VALUES (1, '{bread,milk,olives}')",
        ] {
            self.show(&client, 0, sql).await?;
        }
        let sql = "SELECT items FROM carts WHERE customer = 1";
        let there =
            self.all_agree(sql, |rows| elements(rows) == ["bread", "milk", "olives"]).await?.is_some();
        self.claim(there, "the cart is on every node");
        Ok(())
    }

    async fn two_devices(&mut self) -> Result<(), Trouble> {
        self.chapter("The phone is cut off, and so is its cart");
        let laptop = self.cluster.leader().await?;
        let phone = (laptop + 1) % 3;
        let (on_laptop, on_phone) =
            (self.cluster.node(laptop)?.connect().await?, self.cluster.node(phone)?.connect().await?);
        self.cluster.isolate(phone, true).await?;
        self.screen.say(&format!(
            "The laptop talks to n{}, the phone to n{}, which hears nobody.",
            laptop + 1,
            phone + 1
        ));
        for sql in [
            "UPDATE carts SET items = array_append(items, 'honey') WHERE customer = 1",
            "UPDATE carts SET items = array_remove(items, 'bread') WHERE customer = 1",
            "UPDATE carts SET items = array_remove(items, 'milk') WHERE customer = 1",
        ] {
            self.show(&on_laptop, laptop, sql).await?;
        }
        for sql in [
            "UPDATE carts SET items = array_append(items, 'wine') WHERE customer = 1",
            "UPDATE carts SET items = array_append(items, 'milk') WHERE customer = 1",
        ] {
            self.show(&on_phone, phone, sql).await?;
        }
        let order = "INSERT INTO orders SELECT 1, customer, items FROM carts WHERE customer = 1";
        let claim = "the phone may fill the cart, but not order: an order must be right";
        self.refused(&on_phone, phone, order, claim).await?;
        self.cluster.isolate(phone, false).await?;
        let sql = "SELECT items FROM carts WHERE customer = 1";
        let merged = ["honey", "milk", "olives", "wine"];
        let agreed = self.all_agree(sql, |rows| elements(rows) == merged).await?.is_some();
        self.show(&on_phone, phone, sql).await?;
        self.claim(
            agreed,
            "whole again: both sides' additions, no bread; and the milk that the phone put in anew has stayed",
        );
        Ok(())
    }

    async fn checkout(&mut self) -> Result<(), Trouble> {
        self.chapter("The checkout: both kinds in one transaction");
        let leader = self.cluster.leader().await?;
        let phone = (leader + 1) % 3;
        let client = self.cluster.node(leader)?.connect().await?;
        let on_phone = self.cluster.node(phone)?.connect().await?;
        self.cluster.isolate(phone, true).await?;
        self.screen.say("While the laptop checks out, the phone, cut off again, puts in one more thing.");
        self.show(
            &on_phone,
            phone,
            "UPDATE carts SET items = array_append(items, 'cheese') WHERE customer = 1",
        )
        .await?;
        for sql in [
            "BEGIN",
            "INSERT INTO orders SELECT 1, customer, items FROM carts WHERE customer = 1",
            "UPDATE carts SET items = '{}' WHERE customer = 1",
            "COMMIT",
        ] {
            self.show(&client, leader, sql).await?;
        }
        self.cluster.isolate(phone, false).await?;
        let sql = "SELECT o.items AS ordered, c.items AS in_the_cart\nFROM orders o JOIN carts c ON c.customer = o.customer";
        let expected = ["{honey,milk,olives,wine}", "{cheese}"];
        let agreed = self.all_agree(sql, |rows| single(rows, &expected)).await?.is_some();
        self.show(&on_phone, phone, sql).await?;
        self.claim(agreed, "what was ordered left the cart; what the checkout had not seen is still in it");
        Ok(())
    }
}
