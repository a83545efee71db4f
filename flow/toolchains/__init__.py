"""Toolchains: one module each, which turns a project and a board into a build plan and reads its reports."""
