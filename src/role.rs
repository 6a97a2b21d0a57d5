//! What a closed set of stores can do: [`role!`].

/// Declares a role that each store of a closed set plays: a private trait that they implement, and
/// an enum of them with the same methods. A method with a default, `= value`, need not be
/// implemented. A store that is missing, or lacks a method, does not compile.
macro_rules! role {
    (
        $(#[$about:meta])*
        $role:ident as $work:ident { $($(#[$on:meta])* $variant:ident($store:ty)),* $(,)? }
        $(
            $(#[$doc:meta])*
            async fn $name:ident(&$self:ident $(, $arg:ident: $type:ty)*) -> $result:ty
                $(= $default:expr)?;
        )*
    ) => {
        $(#[$about])*
        #[derive(Clone)]
        pub enum $role {
            $($(#[$on])* #[doc = concat!("See [`", stringify!($store), "`].")] $variant($store),)*
        }

        trait $work {
            $(crate::role::role!(@method $name(&$self $(, $arg: $type)*) -> $result $(= $default)?);)*
        }

        crate::role::role!(@each $role $work { $([$(#[$on])*] $variant)* } $(
            $(#[$doc])*
            $name(&$self $(, $arg: $type)*) -> $result;
        )*);
    };
    (@method $name:ident(&$self:ident $(, $arg:ident: $type:ty)*) -> $result:ty) => {
        async fn $name(&$self $(, $arg: $type)*) -> $result;
    };
    (@method $name:ident(&$self:ident $(, $arg:ident: $type:ty)*) -> $result:ty = $default:expr) => {
        async fn $name(&$self $(, $arg: $type)*) -> $result {
            $(let _ = &$arg;)*
            $default
        }
    };
    (@each $role:ident $work:ident $variants:tt $(
        $(#[$doc:meta])*
        $name:ident(&$self:ident $(, $arg:ident: $type:ty)*) -> $result:ty;
    )*) => {
        impl $role {
            $(
                $(#[$doc])*
                pub async fn $name(&$self $(, $arg: $type)*) -> $result {
                    crate::role::role!(@match $self $role $work $name $variants ($($arg)*))
                }
            )*
        }
    };
    (@match $self:ident $role:ident $work:ident $name:ident { $([$(#[$on:meta])*] $variant:ident)* } $args:tt) => {
        match $self {
            $($(#[$on])* $role::$variant(store) => crate::role::role!(@call $work $name store $args),)*
        }
    };
    (@call $work:ident $name:ident $store:ident ($($arg:ident)*)) => {
        $work::$name($store $(, $arg)*).await
    };
}

pub(crate) use role;
