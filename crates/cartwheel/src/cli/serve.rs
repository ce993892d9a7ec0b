use clap::Args;

use super::SettingsArgs;

/// The arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ServeArgs {
    /// Stop when standard input ends.
    ///
    /// `cartwheel dev` holds standard input open, so that its nodes never outlive it.
    #[arg(long)]
    pub stop_with_stdin: bool,
    /// The settings.
    #[command(flatten)]
    pub given: SettingsArgs,
}

const EXAMPLES: &str = "Examples:
  The first node of a cluster that `cartwheel dev --dir ./data` has made, with more memory and a log for programs:
    cartwheel serve --dir ./data/node-1 --cache-size 1GiB --log-format json

  The same with a file, and one setting from the environment:
    cat > node-1.toml <<END
    dir = \"./data/node-1\"
    cache_size = \"1GiB\"
    log_format = \"json\"
    END
    CARTWHEEL_LOG_LEVEL=debug cartwheel serve --config node-1.toml

  A cluster that grows: the first node founds it, another waits to be let in, a third lets itself in:
    cartwheel serve --bootstrap --cluster-name shop --name a --dir ./a
    cartwheel serve --seed cartwheel.example:7400 --name b --zone east --dir ./b --peer-listen 127.0.0.1:7401 --http-listen 127.0.0.1:8081
    CARTWHEEL_SEED=10.0.0.1:7400,10.0.0.2:7400 cartwheel serve --join --name c --config c.toml

  On all interfaces of a machine whose network is yours alone:
    cartwheel serve --dir ./data/node-1 --http-listen 0.0.0.0:8081 --insecure";
