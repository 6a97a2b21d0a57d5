//! Tables that we make, complete, or only look at.

use super::super::error::{Error, StoreErrorKind};
use rusqlite::{Connection, OptionalExtension};

/// What stands before each table of a [`Schema`].
const CREATE: &str = "CREATE TABLE IF NOT EXISTS ";

/// Tables of one of our uses of the file.
pub struct Schema {
    /// `CREATE TABLE IF NOT EXISTS` statements, a column a line.
    pub tables: &'static str,
    /// Columns that a table which is there may lack, for it was made by a Python program or by
    /// an older version of this one: table, name, type and default.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
    /// `CREATE INDEX IF NOT EXISTS` statements.
    pub indexes: &'static str,
}

impl Schema {
    /// Creates what is missing, in one transaction.
    ///
    /// # Errors
    /// The file cannot be written, or holds other tables of these names.
    pub fn create(&self, c: &Connection) -> Result<(), Error> {
        c.execute_batch("BEGIN IMMEDIATE")?;
        c.execute_batch(self.tables)?;
        for (table, name, kind) in self.missing(c)? {
            c.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?;
        }
        self.check(c)?;
        c.execute_batch(self.indexes)?;
        Ok(c.execute_batch("COMMIT")?)
    }

    /// For one who only looks: what is missing is there for this connection alone, and empty.
    ///
    /// # Errors
    /// The file cannot be read, or holds other tables of these names.
    pub fn imagine(&self, c: &Connection) -> Result<(), Error> {
        for (name, body) in self.each_table() {
            if kind_of(c, name)?.is_none() {
                c.execute_batch(&format!("CREATE TEMP TABLE IF NOT EXISTS {name} {body}"))?;
            }
        }
        let mut missing = Vec::new();
        for (table, name, kind) in self.missing(c)? {
            match kind_of(c, table)? {
                Some(_) => missing.push((table, name, kind)),
                None => {
                    c.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?
                }
            }
        }
        let mut tables: Vec<&str> = missing.iter().map(|(table, _, _)| *table).collect();
        tables.dedup();
        for table in tables {
            let of_table = missing.iter().filter(|(of, _, _)| *of == table);
            let added: String = of_table
                .map(|(_, name, kind)| {
                    let value = kind.split_once("DEFAULT ").map_or("NULL", |(_, value)| value);
                    format!(", {value} AS {name}")
                })
                .collect();
            c.execute_batch(&format!(
                "CREATE TEMP VIEW IF NOT EXISTS {table} AS SELECT *{added} FROM main.{table}"
            ))?;
        }
        self.check(c)
    }

    /// Each table, and what stands in its parentheses and behind them.
    fn each_table(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.tables.split(CREATE).filter_map(|table| table.split_once(' '))
    }

    fn missing(
        &self,
        c: &Connection,
    ) -> Result<Vec<(&'static str, &'static str, &'static str)>, Error> {
        let mut asked = c.prepare("SELECT 1 FROM pragma_table_info(?) WHERE name = ?")?;
        let mut missing = Vec::new();
        for (table, name, kind) in self.columns {
            // A table that is only imagined has them all.
            if !asked.exists([table, name])? {
                missing.push((*table, *name, *kind));
            }
        }
        Ok(missing)
    }

    /// Are these the tables that we mean? Others of these names are not touched.
    fn check(&self, c: &Connection) -> Result<(), Error> {
        for (name, body) in self.each_table() {
            let of_another = |why: &str| {
                let text = format!("{name} is not the table that it has to be: {why}");
                Error::of(StoreErrorKind::Unopened, text)
            };
            match kind_of(c, name)?.as_deref() {
                Some("table") | None => {}
                Some(kind) => return Err(of_another(&format!("it is a {kind}"))),
            }
            let lines = body.lines().skip(1).map(str::trim);
            let columns = lines.take_while(|line| !line.starts_with([')', 'P']));
            let columns: Vec<&str> = columns.filter_map(|line| line.split(' ').next()).collect();
            let sql = format!("SELECT {} FROM {name} LIMIT 0", columns.join(", "));
            c.prepare(&sql).map_err(|error| of_another(&error.to_string()))?;
        }
        Ok(())
    }
}

/// `table` or `view`; `None` if there is nothing of this name in the file.
fn kind_of(c: &Connection, name: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT type FROM main.sqlite_schema WHERE name = ? AND type IN ('table', 'view')";
    Ok(c.query_row(sql, [name], |row| row.get(0)).optional()?)
}
