use clap::Args;

use super::SettingsArgs;

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ServeArgs {
    /// Stop when standard input ends.
    ///
    /// `cartwheel dev` holds standard input open, so that its nodes never outlive it.
    #[arg(long)]
    pub stop_with_stdin: bool,
    /// Give the user `admin` the configured password and all roles again.
    ///
    /// For a cluster whose administrators have lost their passwords. It needs `admin_password_file`, or the variable CARTWHEEL_ADMIN_PASSWORD.
    #[arg(long)]
    pub reset_admin: bool,
    #[command(flatten)]
    pub given: SettingsArgs,
}

const EXAMPLES: &str = "Examples:
  Run the first node of a cluster created by `cartwheel dev --dir ./data`, with a larger cache and a JSON log:
    cartwheel serve --dir ./data/node-1 --cache-size 1GiB --log-format json

  Set the same in a file, and one more setting in the environment:
    cat > node-1.toml <<END
    dir = \"./data/node-1\"
    cache_size = \"1GiB\"
    log_format = \"json\"
    END
    CARTWHEEL_LOG_LEVEL=debug cartwheel serve --config node-1.toml

  Bootstrap a cluster, start a second node that waits to be added, and a third that joins without waiting:
    cartwheel serve --bootstrap --cluster-name shop --name a --dir ./a
    cartwheel serve --seed cartwheel.example:7400 --name b --zone east --dir ./b --peer-listen 127.0.0.1:7401 --http-listen 127.0.0.1:8081
    CARTWHEEL_SEED=10.0.0.1:7400,10.0.0.2:7400 cartwheel serve --join --name c --config c.toml

  Listen on all interfaces of a machine in a private network:
    cartwheel serve --dir ./data/node-1 --http-listen 0.0.0.0:8081 --insecure";
