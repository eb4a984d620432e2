//! One profile, edited on both sides of an ocean.

use std::time::Instant;

use super::Trouble;
use super::rows::{number, single};
use super::story::Story;

/// A write that needs nobody should take no longer, also on a busy machine.
const LOCAL_MS: u128 = 1000;

impl Story {
    pub(super) async fn profile_in_two_regions(&mut self) -> Result<(), Trouble> {
        self.a_profile_in_two_regions().await?;
        self.edited_on_both_sides().await?;
        self.the_loser_is_restored().await
    }

    async fn a_profile_in_two_regions(&mut self) -> Result<(), Trouble> {
        self.chapter("A profile that both regions may edit");
        let client = self.cluster.node(0)?.connect().await?;
        for sql in [
            "CREATE TABLE profiles (id int PRIMARY KEY, name text, city text, theme text)\n\
             WITH (replication = 'leaderless')",
            "INSERT INTO profiles VALUES (1, 'Ada', 'London', 'light')",
        ] {
            self.show(&client, 0, sql).await?;
        }
        let sql = "SELECT name, city, theme FROM profiles WHERE id = 1";
        let there = self.all_agree(sql, |rows| single(rows, &["Ada", "London", "light"])).await?.is_some();
        self.claim(there, "written in eu, and there in us");
        self.screen.say("What would happen if somebody else changed the same column at the same time?");
        let plan = self.show(
            &client,
            0,
            "EXPLAIN (CONFLICTS, COSTS off) UPDATE profiles SET theme = 'dark' WHERE id = 1",
        );
        let plan = plan.await?;
        let lines = plan.iter().flatten().flatten();
        let told = lines.filter(|line| line.contains("theme (lww)")).count() == 1;
        self.claim(told, "EXPLAIN says which write would win, and where the other is kept");
        Ok(())
    }

    async fn edited_on_both_sides(&mut self) -> Result<(), Trouble> {
        self.chapter("The cable across the ocean breaks");
        let (eu, us) = (self.cluster.node(0)?.connect().await?, self.cluster.node(2)?.connect().await?);
        self.cluster.isolate(2, true).await?;
        self.screen.say("n1 and n2 are eu, n3 is us. Nobody waits for anybody:");
        let start = Instant::now();
        self.show(&eu, 0, "UPDATE profiles SET city = 'Paris', theme = 'dark' WHERE id = 1").await?;
        self.show(&us, 2, "UPDATE profiles SET name = 'Ada L.', theme = 'sepia' WHERE id = 1").await?;
        let took = start.elapsed().as_millis();
        let sql = "SELECT name, city, theme FROM profiles WHERE id = 1";
        let in_eu = self.show(&eu, 0, sql).await?;
        let in_us = self.show(&us, 2, sql).await?;
        self.claim(
            single(&in_eu, &["Ada", "Paris", "dark"]) && single(&in_us, &["Ada L.", "London", "sepia"]),
            "each region goes on with what it knows",
        );
        self.claim(took < LOCAL_MS, &format!("both writes were acknowledged at once: {took} ms for the two"));
        Ok(())
    }

    async fn the_loser_is_restored(&mut self) -> Result<(), Trouble> {
        self.chapter("The cable is mended");
        let client = self.cluster.node(0)?.connect().await?;
        let healed = Instant::now();
        self.cluster.isolate(2, false).await?;
        let sql = "SELECT name, city, theme FROM profiles WHERE id = 1";
        let agreed = self.all_agree(sql, |rows| single(rows, &["Ada L.", "Paris", "sepia"])).await?.is_some();
        self.show(&client, 0, sql).await?;
        self.claim(
            agreed,
            &format!(
                "all nodes agree after {} ms: each side's own columns, and the later of two themes",
                healed.elapsed().as_millis()
            ),
        );
        self.screen.say("Last writer wins, but the other is not forgotten:");
        let sql = "SELECT conflict_id, column_name, kind, loser, winner\nFROM amphora.conflicts WHERE table_name = 'profiles'";
        let lost = self.show(&client, 0, sql).await?;
        let one =
            lost.len() == 1 && lost.iter().any(|row| row.iter().flatten().any(|cell| cell == "\"dark\""));
        self.claim(one, "one conflict: the theme. Columns that one side alone changed are none");
        let restore = format!("SELECT amphora.restore({})", number(&lost)?);
        self.show(&client, 0, &restore).await?;
        let sql = "SELECT theme FROM profiles WHERE id = 1";
        let agreed = self.all_agree(sql, |rows| single(rows, &["dark"])).await?.is_some();
        let far = self.cluster.node(2)?.connect().await?;
        self.show(&far, 2, sql).await?;
        self.claim(agreed, "the loser was written back, as a new write, everywhere");
        Ok(())
    }
}
