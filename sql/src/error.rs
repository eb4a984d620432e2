//! What can go wrong in a statement, as a client is told: a SQLSTATE and PostgreSQL's words.
//!
//! An error gets its SQLSTATE where it is born. It is one word wide, because results are returned from
//! every expression of every row; its fields live behind a box and are reached through `Deref`.

use amphora_replication::ErrorKind;
use amphora_storage::DataType;

/// The result of everything in this crate that can fail.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// An error that can be sent to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError(Box<ErrorFields>);

/// The fields of PostgreSQL's ErrorResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields {
    /// The five characters of the SQLSTATE
    pub sqlstate: &'static str,
    /// The primary message: lower case, no full stop
    pub message: String,
    /// DETAIL: whole sentences
    pub detail: Option<String>,
    /// HINT: what to do about it
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1
    pub position: Option<usize>,
    /// CONTEXT: where in the execution
    pub context: Option<String>,
    /// The schema it is about
    pub schema: Option<String>,
    /// The table it is about
    pub table: Option<String>,
    /// The column it is about
    pub column: Option<String>,
    /// The type it is about
    pub data_type: Option<String>,
    /// The constraint it is about
    pub constraint: Option<String>,
    /// Of an error that came from the replication floor: what the session may do about it. Not sent.
    pub retry: Option<ErrorKind>,
}

impl std::ops::Deref for SqlError {
    type Target = ErrorFields;
    fn deref(&self) -> &ErrorFields {
        &self.0
    }
}

impl std::ops::DerefMut for SqlError {
    fn deref_mut(&mut self) -> &mut ErrorFields {
        &mut self.0
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

/// Declares the constructors that are only a SQLSTATE and a message.
macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $state:literal;)*) => {
        impl SqlError {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> SqlError {
                SqlError::new($state, message)
            })*
        }
    };
}

constructors! {
    /// 0A000
    feature_not_supported = "0A000";
    /// 08P01
    protocol_violation = "08P01";
    /// 21000
    cardinality_violation = "21000";
    /// 22001
    string_data_right_truncation = "22001";
    /// 22003
    numeric_value_out_of_range = "22003";
    /// 22004
    null_value_not_allowed = "22004";
    /// 22007
    invalid_datetime_format = "22007";
    /// 22008
    datetime_field_overflow = "22008";
    /// 2200W and friends: a bad argument of a row-limiting clause
    invalid_row_count = "2201W";
    /// 22P02
    invalid_text_representation = "22P02";
    /// 22P03
    invalid_binary_representation = "22P03";
    /// 22021
    character_not_in_repertoire = "22021";
    /// 22023
    invalid_parameter_value = "22023";
    /// 2202E
    array_subscript_error = "2202E";
    /// 2201B
    invalid_regular_expression = "2201B";
    /// 22030
    duplicate_json_object_key = "22030";
    /// 22033 and friends
    invalid_json_subscript = "22033";
    /// 23502
    not_null_violation = "23502";
    /// 23503
    foreign_key_violation = "23503";
    /// 23505
    unique_violation = "23505";
    /// 23514
    check_violation = "23514";
    /// 25001
    active_sql_transaction = "25001";
    /// 25006
    read_only_sql_transaction = "25006";
    /// 25P01
    no_active_sql_transaction = "25P01";
    /// 25P02
    in_failed_sql_transaction = "25P02";
    /// 26000
    invalid_statement_name = "26000";
    /// 2BP01
    dependent_objects_still_exist = "2BP01";
    /// 34000
    invalid_cursor_name = "34000";
    /// 3B001
    invalid_savepoint = "3B001";
    /// 3D000
    invalid_catalog_name = "3D000";
    /// 3F000
    invalid_schema_name = "3F000";
    /// 40001
    serialization_failure = "40001";
    /// 40003
    statement_completion_unknown = "40003";
    /// 40P01
    deadlock_detected = "40P01";
    /// 42501
    insufficient_privilege = "42501";
    /// 42601
    syntax_error = "42601";
    /// 42602
    invalid_name = "42602";
    /// 42611
    invalid_column_definition = "42611";
    /// 42701
    duplicate_column = "42701";
    /// 42702
    ambiguous_column = "42702";
    /// 42703
    undefined_column = "42703";
    /// 42704
    undefined_object = "42704";
    /// 42710
    duplicate_object = "42710";
    /// 42712
    duplicate_alias = "42712";
    /// 42725
    ambiguous_function = "42725";
    /// 42803
    grouping_error = "42803";
    /// 42804
    datatype_mismatch = "42804";
    /// 42809
    wrong_object_type = "42809";
    /// 42830
    invalid_foreign_key = "42830";
    /// 42846
    cannot_coerce = "42846";
    /// 42883
    undefined_function = "42883";
    /// 42P01
    undefined_table = "42P01";
    /// 42P02
    undefined_parameter = "42P02";
    /// 42P05
    duplicate_prepared_statement = "42P05";
    /// 42P06
    duplicate_schema = "42P06";
    /// 42P07
    duplicate_table = "42P07";
    /// 42P08
    ambiguous_parameter = "42P08";
    /// 42P10
    invalid_column_reference = "42P10";
    /// 42P16
    invalid_table_definition = "42P16";
    /// 42P18
    indeterminate_datatype = "42P18";
    /// 42P19
    invalid_recursion = "42P19";
    /// 53100
    disk_full = "53100";
    /// 53200
    out_of_memory = "53200";
    /// 53300
    too_many_connections = "53300";
    /// 54000
    program_limit_exceeded = "54000";
    /// 54001
    statement_too_complex = "54001";
    /// 55000
    object_not_in_prerequisite_state = "55000";
    /// 55P03
    lock_not_available = "55P03";
    /// 57014
    query_canceled = "57014";
    /// 57P01
    admin_shutdown = "57P01";
    /// 57P03
    cannot_connect_now = "57P03";
    /// 58030
    io_error = "58030";
    /// XX000
    internal = "XX000";
    /// XX001
    data_corrupted = "XX001";
}

impl SqlError {
    /// An error with nothing but its SQLSTATE and message.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> SqlError {
        SqlError(Box::new(ErrorFields { sqlstate, message: message.into(), ..ErrorFields::default() }))
    }

    /// 22012
    pub fn division_by_zero() -> SqlError {
        SqlError::new("22012", "division by zero")
    }

    /// 22003, `integer out of range`
    pub fn out_of_range(data_type: &DataType) -> SqlError {
        SqlError::new("22003", format!("{} out of range", data_type.unmodified()))
    }

    /// 22P02, `invalid input syntax for type integer: "abc"`
    pub fn invalid_input(data_type: &DataType, text: &str) -> SqlError {
        let message = format!("invalid input syntax for type {}: \"{text}\"", data_type.unmodified());
        SqlError::new("22P02", message)
    }

    /// The same error with a DETAIL.
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    /// The same error with a HINT.
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with a place in the statement, in characters from 1.
    pub fn at(mut self, position: usize) -> SqlError {
        self.position = Some(position);
        self
    }

    /// The same error, naming the table it is about.
    pub fn with_table(mut self, schema: impl Into<String>, table: impl Into<String>) -> SqlError {
        self.schema = Some(schema.into());
        self.table = Some(table.into());
        self
    }

    /// The same error, naming the column it is about.
    pub fn with_column(mut self, column: impl Into<String>) -> SqlError {
        self.column = Some(column.into());
        self
    }

    /// The same error, naming the type it is about.
    pub fn with_data_type(mut self, data_type: impl Into<String>) -> SqlError {
        self.data_type = Some(data_type.into());
        self
    }

    /// The same error, naming the constraint it is about.
    pub fn with_constraint(mut self, constraint: impl Into<String>) -> SqlError {
        self.constraint = Some(constraint.into());
        self
    }
}
