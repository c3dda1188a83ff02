#![no_main]

tallystone_fuzz::target!(tallystone::testing::fuzz::import_exposition);
