# SPDX-License-Identifier: Apache-2.0
#
# Prints a Rust library of some modules, for a compiler to work on. Usage: python3 sources.py MODULES
import sys

for number in range(int(sys.argv[1])):
    print(f"""
pub mod m{number} {{
    use std::collections::BTreeMap;
    #[derive(Clone, Debug, PartialEq)]
    pub struct Item {{ pub id: u64, pub name: String, pub tags: Vec<u32> }}
    pub fn build(count: u64) -> BTreeMap<u64, Item> {{
        (0..count).map(|i| (i * {number + 3}, Item {{ id: i, name: format!("item {{}}", i), tags: vec![i as u32; 3] }})).collect()
    }}
    pub fn sum(items: &BTreeMap<u64, Item>) -> u64 {{
        items.values().map(|item| item.id + item.tags.iter().map(|t| *t as u64).sum::<u64>() + item.name.len() as u64).sum()
    }}
    pub fn sorted(items: &BTreeMap<u64, Item>) -> Vec<String> {{
        let mut names: Vec<String> = items.values().map(|item| format!("{{:?}}", item)).collect();
        names.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        names
    }}
}}""")
